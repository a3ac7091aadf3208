package nodestack

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// runtimeBudget is how long all container runtimes together may take to answer.
const runtimeBudget = 500 * time.Millisecond

// Host is what Collect reads: files, and what answers live.
type Host struct {
	Root *hostfs.Root
	Live Live
}

// Open returns the host at a root: a real one is asked, of a recording the
// recorded answers are replayed.
func Open(root *hostfs.Root) (Host, error) {
	manifest := root.Recording()
	if manifest == nil {
		return Host{Root: root, Live: newHostLive(root)}, nil
	}
	if len(manifest.Stack) == 0 {
		return Host{Root: root}, nil
	}
	live, err := parseAnswers(manifest.Stack)
	if err != nil {
		return Host{}, err
	}
	return Host{Root: root, Live: live}, nil
}

// Collect reads every fact about the stack; kernel is the running release,
// which names the folder of its modules. It never fails as a whole.
func Collect(ctx context.Context, host Host, kernel string) Facts {
	if host.Live == nil {
		return Facts{NotRecorded: true}
	}
	ctx, cancel := context.WithTimeout(ctx, kvmcheck.Deadline)
	defer cancel()
	host.Root = host.Root.Within(ctx)
	running := host.Live.Running()
	facts := Facts{Daemons: running.Daemons, Domains: running.Domains, Clock: host.Live.Clock()}
	mounts := collectMounts(host.Root)
	facts.Kubelet = collectKubelet(host.Root, running.Daemons, mounts)
	facts.Runtimes = collectRuntimes(ctx, host, facts.Kubelet)
	facts.CNI = collectCNI(host, facts.Runtimes)
	facts.Storage = collectStorage(host, kernel, facts, mounts)
	return facts
}

// Record adds the stack to a recording that kvmcheck has made of the host.
func Record(ctx context.Context, host Host, recording *kvmcheck.Recorded) error {
	if host.Live == nil {
		return nil // a recording of a recording that has no stack
	}
	live := &recordingLive{real: host.Live}
	Collect(ctx, Host{Root: recording.Root, Live: live}, recording.Manifest.Kernel)
	data, err := json.Marshal(live.answers)
	if err != nil {
		return fmt.Errorf("record the answers of the stack: %w", err)
	}
	recording.Manifest.Stack = data
	return nil
}

// collectRuntimes asks the runtime that the kubelet uses, or those whose
// socket is in a customary place, until one answers. All share one budget.
func collectRuntimes(ctx context.Context, host Host, kubelet KubeletFacts) []Runtime {
	if kubelet.Endpoint == "" && !kubelet.Config.Known {
		return []Runtime{{Err: kubelet.Config.Err}} // it may name any
	}
	ctx, cancel := context.WithTimeout(ctx, runtimeBudget)
	defer cancel()
	sockets := []string{
		"/run/containerd/containerd.sock",
		"/run/crio/crio.sock",
		"/run/cri-dockerd.sock",
		"/run/k3s/containerd/containerd.sock",
	}
	if kubelet.Endpoint != "" {
		sockets = []string{kubelet.Endpoint}
	}
	runtimes := []Runtime{}
	for _, socket := range sockets {
		runtimes = append(runtimes, host.Live.Runtime(ctx, socket))
		if runtimes[len(runtimes)-1].State == RuntimeAnswered {
			break
		}
	}
	return runtimes
}

// runtime picks the runtime to judge: the one that answers, else one that may
// yet, else the first whose socket is there, else the first.
func (f Facts) runtime() Runtime {
	for _, state := range []RuntimeState{RuntimeAnswered, RuntimeUnknown, RuntimeNoCRI, RuntimeRefused} {
		if i := slices.IndexFunc(f.Runtimes, func(r Runtime) bool { return r.State == state }); i >= 0 {
			return f.Runtimes[i]
		}
	}
	if len(f.Runtimes) > 0 {
		return f.Runtimes[0]
	}
	return Runtime{Err: "no container runtime was asked"}
}

// silence says why a runtime's status is not known.
func (r Runtime) silence() string {
	return cmp.Or(r.Status.Err, r.Err, r.Socket+": no answer over the CRI; see runtime/cri")
}

// daemon reports whether a process of one of the names runs.
func daemon(daemons kvmcheck.Reading[[]Daemon], names ...string) kvmcheck.Reading[bool] {
	runs := slices.ContainsFunc(daemons.Value, func(d Daemon) bool { return slices.Contains(names, d.Name) })
	known := daemons.Known && (runs || daemons.Err == "")
	return kvmcheck.Reading[bool]{Value: runs, Known: known, Source: daemons.Source, Err: daemons.Err}
}
