package nodestack_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// debianCNI is where Debian's containernetworking-plugins are.
const debianCNI = "/usr/lib/cni"

func runtimeMissing() error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("not root"))
	}
	if _, err := exec.LookPath("containerd"); err != nil {
		missing = append(missing, err)
	}
	if _, err := os.Stat(filepath.Join(debianCNI, "bridge")); err != nil {
		missing = append(missing, err)
	}
	return errors.Join(missing...)
}

// containerd is a daemon of the test's own: its root, state, socket and
// network configuration are in one folder.
type containerd struct {
	dir     string
	process *os.Process
}

const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = [%[2]s]
[grpc]
  address = "%[1]s/run/containerd/containerd.sock"
[ttrpc]
  address = "%[1]s/run/containerd/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[3]s"
    conf_dir = "%[1]s/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = %[4]t
`

// startContainerd starts the machine's containerd and waits for its first answer.
func startContainerd(t *testing.T, network string, systemd bool, disabled ...string) *containerd {
	t.Helper()
	hosttest.Need(t, hosttest.Runtime, runtimeMissing())
	dir := shortDir(t)
	names := append([]string{"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"}, disabled...)
	for i := range names {
		names[i] = `"` + names[i] + `"`
	}
	write := func(name, text string) {
		full := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("config.toml", fmt.Sprintf(containerdConfig, dir, strings.Join(names, ","), debianCNI, systemd))
	write("etc/cni/net.d/10-pods.conflist", network)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	c := &containerd{dir: dir, process: cmd.Process}
	c.await(t)
	return c
}

func (c *containerd) await(t *testing.T) {
	t.Helper()
	_, host := openStack(t, c.dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := host.Live.Runtime(ctx, socketName)
		if answer.State == nodestack.RuntimeAnswered && answer.Status.Known || answer.State == nodestack.RuntimeNoCRI {
			return
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			t.Fatalf("containerd does not answer: %s\n%s", answer.Err, log)
		case <-tick.C:
		}
	}
}

// node is this machine with a kubelet that uses this containerd.
func (c *containerd) node(t *testing.T) nodestack.Host {
	t.Helper()
	_, host := openStack(t, "/")
	kubelet := nodestack.Daemon{Name: "kubelet", Flags: map[string]string{
		"root-dir": c.dir, "container-runtime-endpoint": "unix://" + filepath.Join(c.dir, socketName), "cgroup-driver": "systemd",
	}}
	return nodestack.Host{Root: host.Root, Live: withKubelet{host.Live, kubelet}}
}

// withKubelet adds a process to those of a machine.
type withKubelet struct {
	nodestack.Live
	kubelet nodestack.Daemon
}

func (l withKubelet) Running() nodestack.Running {
	running := l.Live.Running()
	running.Daemons.Value = append(running.Daemons.Value, l.kubelet)
	return running
}

// answered collects until the one runtime has answered all: on a busy machine it
// may take longer than a check waits.
func answered(t *testing.T, host nodestack.Host) nodestack.Facts {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		facts := nodestack.Collect(t.Context(), host, "none")
		if len(facts.Runtimes) == 1 && (facts.Runtimes[0].ImageStore.Known || facts.Runtimes[0].State == nodestack.RuntimeNoCRI) {
			return facts
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", facts.Runtimes)
		}
	}
}

const podNetwork = `{"cniVersion":"0.4.0","name":"pods","plugins":[{"type":"bridge","mtu":1400,"ipam":{"type":"host-local","subnet":"10.9.0.0/24"}},{"type":"%s"}]}`

func TestContainerdIsRead(t *testing.T) {
	containerd := startContainerd(t, fmt.Sprintf(podNetwork, "portmap"), true)
	facts := answered(t, containerd.node(t))
	runtime := facts.Runtimes[0]
	t.Logf("%+v", runtime)
	out, err := exec.Command("containerd", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.Name != "containerd" || runtime.Version == "" || !slices.ContainsFunc(strings.Fields(string(out)), func(word string) bool {
		return strings.TrimPrefix(word, "v") == strings.TrimPrefix(runtime.Version, "v")
	}) {
		t.Errorf("%s %s; containerd --version says %s", runtime.Name, runtime.Version, out)
	}
	if !runtime.CgroupDriver.Known || runtime.CgroupDriver.Value.Name != "systemd" {
		t.Errorf("cgroup driver: %+v", runtime.CgroupDriver)
	}
	if want := containerd.dir + "/root/io.containerd.snapshotter.v1.native"; runtime.ImageStore.Value != want {
		t.Errorf("image store: %+v, want %s", runtime.ImageStore, want)
	}
	if facts.CNI.ConfDir != containerd.dir+"/etc/cni/net.d" || !slices.Equal(facts.CNI.BinDirs, []string{debianCNI}) || !facts.CNI.Certain {
		t.Errorf("CNI: %+v", facts.CNI)
	}
	if !facts.Storage.Images.Volume.Known {
		t.Errorf("images: %+v", facts.Storage.Images)
	}
	got := judged(nodestack.Evaluate(facts, kvmcheck.Facts{}, kvmcheck.Profile{}))
	for key, want := range map[string]string{
		"runtime/cri": "Ready", "runtime/cgroup-driver": "Ready", "runtime/snapshotter": "NotReady SnapshotterCopies",
		"cni/network": "Ready", "cni/plugins": "Ready", "cni/vm-plugins": "Ready", "cni/multus": "NotReady NoMultus",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
}

func TestContainerdAtOddsWithItsNode(t *testing.T) {
	containerd := startContainerd(t, fmt.Sprintf(podNetwork, "flannel"), false)
	host := containerd.node(t)
	got := judged(nodestack.Evaluate(answered(t, host), kvmcheck.Facts{}, kvmcheck.Profile{}))
	if got["cni/plugins"] != "NotReady CNIPluginMissing" {
		t.Errorf("cni/plugins: %s", got["cni/plugins"])
	}
	if got["runtime/cgroup-driver"] != "NotReady CgroupDriverMismatch" {
		t.Errorf("runtime/cgroup-driver: %s", got["runtime/cgroup-driver"])
	}
}

func TestContainerdWithoutCRI(t *testing.T) {
	containerd := startContainerd(t, "{}", false, "io.containerd.grpc.v1.cri")
	got := judged(nodestack.Evaluate(answered(t, containerd.node(t)), kvmcheck.Facts{}, kvmcheck.Profile{}))
	if got["runtime/cri"] != "NotReady CRINotServed" || got["cni/network"] != "Unknown ReadFailed" {
		t.Errorf("%v", got)
	}
}

// TestStoppedContainerd holds that a daemon that hangs is Unknown when the
// deadline is over, and that one that was killed is not running.
func TestStoppedContainerd(t *testing.T) {
	containerd := startContainerd(t, fmt.Sprintf(podNetwork, "portmap"), true)
	if err := containerd.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	host := containerd.node(t)
	findings := nodestack.Evaluate(nodestack.Collect(t.Context(), host, "none"), kvmcheck.Facts{}, kvmcheck.Profile{})
	socket := filepath.Join(containerd.dir, socketName)
	for _, finding := range findings {
		if finding.Area != "runtime" && finding.Area != "cni" && finding.Key() != "storage/space-images" {
			continue
		}
		if finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, socket+": no answer to Version within 500ms") {
			t.Errorf("%+v", finding)
		}
	}
	if err := containerd.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	containerd.await(t)
	if got := judged(nodestack.Evaluate(answered(t, host), kvmcheck.Facts{}, kvmcheck.Profile{})); got["runtime/cri"] != "Ready" {
		t.Errorf("after it went on: %s", got["runtime/cri"])
	}
	if err := containerd.process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := containerd.process.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := judged(nodestack.Evaluate(nodestack.Collect(t.Context(), host, "none"), kvmcheck.Facts{}, kvmcheck.Profile{})); got["runtime/cri"] != "NotReady RuntimeNotRunning" {
		t.Errorf("after it was killed: %s", got["runtime/cri"])
	}
}
