package nodestack

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

func evaluateRuntime(facts Facts) []finding {
	return []finding{evaluateCRI(facts), evaluateCgroupDriver(facts), evaluateSnapshotter(facts)}
}

func evaluateCRI(facts Facts) finding {
	const area, check = "runtime", "cri"
	runtime := facts.runtime()
	switch runtime.State {
	case RuntimeAnswered:
		return evaluateConditions(runtime)
	case RuntimeAbsent:
		return kvmcheck.Lacking(area, check, NoContainerRuntime,
			"no container runtime has its socket in "+strings.Join(socketsOf(facts.Runtimes), ", "),
			"start containerd or CRI-O: systemctl enable --now containerd; journalctl -u containerd -n 50")
	case RuntimeRefused:
		return kvmcheck.Lacking(area, check, RuntimeNotRunning, runtime.Socket+": nobody listens: connection refused",
			"systemctl restart containerd (or crio); journalctl -u containerd -n 50")
	case RuntimeNoCRI:
		return kvmcheck.Lacking(area, check, CRINotServed, runtime.Socket+" answers, but does not serve runtime.v1",
			`take "cri" out of disabled_plugins in /etc/containerd/config.toml (or: containerd config default > /etc/containerd/config.toml) and restart containerd; it must be 1.6 or later`)
	default:
		return kvmcheck.Undecided(area, check, runtime.Err)
	}
}

func socketsOf(runtimes []Runtime) []string {
	var sockets []string
	for _, runtime := range runtimes {
		sockets = append(sockets, runtime.Socket)
	}
	return sockets
}

func evaluateConditions(runtime Runtime) finding {
	const area, check = "runtime", "cri"
	name := fmt.Sprintf("%s %s at %s", runtime.Name, runtime.Version, runtime.Socket)
	if !runtime.Status.Known {
		return kvmcheck.Undecided(area, check, runtime.Status.Err)
	}
	conditions := runtime.Status.Value.Conditions
	for _, must := range []struct {
		condition string
		reason    kvmcheck.Reason
		remedy    string
	}{
		{"RuntimeReady", RuntimeNotReady, "journalctl -u containerd -n 50 (or -u crio)"},
		{"NetworkReady", RuntimeNetworkNotReady, "install the cluster's network, or look at its pods on this node; see cni/network"},
	} {
		i := slices.IndexFunc(conditions, func(c Condition) bool { return c.Type == must.condition })
		if i < 0 {
			return kvmcheck.Undecided(area, check, fmt.Sprintf("%s: it has no condition %s", runtime.Status.Source, must.condition))
		}
		if c := conditions[i]; !c.Status {
			return kvmcheck.Lacking(area, check, must.reason, fmt.Sprintf("%s: %s is false: %s %s", name, c.Type, c.Reason, c.Message), must.remedy)
		}
	}
	return kvmcheck.Found(area, check, name)
}

// evaluateCgroupDriver compares two drivers only where they can differ: a
// kubelet follows a runtime that tells its driver over the CRI.
func evaluateCgroupDriver(facts Facts) finding {
	const area, check = "runtime", "cgroup-driver"
	runtime := facts.runtime()
	driver, config := runtime.CgroupDriver, facts.Kubelet.Config
	switch {
	case runtime.State != RuntimeAnswered:
		return kvmcheck.Undecided(area, check, runtime.silence())
	case !driver.Known:
		return kvmcheck.Undecided(area, check, driver.Err)
	case driver.Value.Told:
		return kvmcheck.Found(area, check, driver.Value.Name+", as the runtime tells the kubelet")
	case !config.Known:
		return kvmcheck.Undecided(area, check, config.Err)
	case config.Value.CgroupDriver == "" && driver.Value.Name == "cgroupfs", config.Value.CgroupDriver == driver.Value.Name:
		return kvmcheck.Found(area, check, driver.Value.Name)
	case config.Value.CgroupDriver == "":
		return kvmcheck.Undecided(area, check, fmt.Sprintf("%s: %s; %s names no cgroupDriver, and the kubelet's default depends on its version",
			driver.Source, driver.Value.Name, config.Source))
	default:
		return kvmcheck.Lacking(area, check, CgroupDriverMismatch,
			fmt.Sprintf("%s: %s; %s: %s: pods are put under two managers of one cgroup tree", driver.Source, driver.Value.Name, config.Source, config.Value.CgroupDriver),
			"set SystemdCgroup in /etc/containerd/config.toml (or cgroupDriver of the kubelet) so that they agree, drain the node, restart both")
	}
}

// evaluateSnapshotter asks whether layers are shared or copied. The image
// store's directory names the snapshotter of containerd
// (io.containerd.snapshotter.v1.NAME) and the driver of CRI-O (NAME-images).
func evaluateSnapshotter(facts Facts) finding {
	const area, check = "runtime", "snapshotter"
	runtime := facts.runtime()
	store := runtime.ImageStore
	if runtime.State != RuntimeAnswered {
		return kvmcheck.Undecided(area, check, runtime.silence())
	}
	name := runtime.Status.Value.Settings.Snapshotter
	if name == "" && store.Known {
		base := path.Base(store.Value)
		name = strings.TrimSuffix(strings.TrimPrefix(base, "io.containerd.snapshotter.v1."), "-images")
	}
	switch {
	case name == "" && !runtime.Status.Known:
		return kvmcheck.Undecided(area, check, runtime.Status.Err)
	case name == "":
		return kvmcheck.Undecided(area, check, store.Err)
	case name == "native" || name == "vfs":
		return kvmcheck.Lacking(area, check, SnapshotterCopies,
			fmt.Sprintf("%s copies the whole image for every container, a containerDisk for every VM", name),
			"use overlayfs (containerd) or overlay (CRI-O) on a file system that supports it: ext4, xfs with ftype=1, btrfs")
	default:
		return kvmcheck.Found(area, check, name)
	}
}
