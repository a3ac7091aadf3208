package nodestack_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// nodeTree is the file system of a node with a kubelet, a Multus on Flannel,
// and a runtime that answers. kernel names the folder of its modules.
func nodeTree(t *testing.T, kernel string) string {
	t.Helper()
	dir := shortDir(t)
	for name, text := range map[string]string{
		"proc/1/mountinfo":    "21 1 254:0 / / rw,relatime shared:1 - xfs /dev/root rw\n",
		"proc/2/comm":         "kthreadd\n",
		"proc/2/status":       "Uid:\t0\t0\t0\t0\nNSpid:\t2\n",
		"proc/100/comm":       "kubelet\n",
		"proc/100/status":     "Name:\tkubelet\nUid:\t0\t0\t0\t0\nNSpid:\t100\n",
		"proc/100/cmdline":    "/usr/bin/kubelet\x00--config=/var/lib/kubelet/config.yaml\x00",
		"proc/200/comm":       "multipathd\n",
		"proc/200/status":     "Uid:\t0\t0\t0\t0\nNSpid:\t200\n",
		"proc/300/comm":       "kubelet\n", // of a cluster in a container
		"proc/300/status":     "Uid:\t0\t0\t0\t0\nNSpid:\t300\t1\n",
		"proc/300/cmdline":    "kubelet\x00--root-dir=/elsewhere\x00",
		"proc/sys/kernel/x":   "",
		"etc/multipath.conf":  "defaults {\n}\n",
		"sys/module/nbd/x":    "",
		"sys/module/rbd/x":    "",
		"sbin/mount.nfs":      "",
		"run/utmp":            "",
		"opt/cni/bin/flannel": "", "opt/cni/bin/multus": "", "opt/cni/bin/portmap": "", "opt/cni/bin/macvlan": "",
		"var/lib/kubelet/config.yaml":                                        "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n",
		"var/lib/kubelet/device-plugins/kubelet.sock":                        "",
		"var/lib/kubelet/device-plugins/kubelet_internal_checkpoint":         `{"Data":{"RegisteredDevices":{"devices.kubevirt.io/tun":["tun0"]}}}`,
		"var/lib/kubelet/pod-resources/kubelet.sock":                         "",
		"var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/metadata": "",
		"lib/modules/" + kernel + "/modules.dep":                             "kernel/drivers/md/dm-crypt.ko.xz:\nkernel/fs/nfs/nfs.ko.xz:\nkernel/drivers/scsi/iscsi_tcp.ko.xz:\n",
		"lib/modules/" + kernel + "/modules.builtin":                         "kernel/fs/nfs/nfsv4.ko\n",
		"etc/cni/net.d/00-multus.conf":                                       `{"name":"multus","type":"multus","delegates":[{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"portmap"}]}]}`,
		"etc/cni/net.d/10-flannel.conflist":                                  `{"name":"cbr0","plugins":[{"type":"flannel"}]}`,
		"etc/cni/net.d/README":                                               "not JSON",
	} {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// judged maps a report's findings to "status reason".
func judged(findings []kvmcheck.Finding) map[string]string {
	words := make(map[string]string)
	for _, finding := range findings {
		words[finding.Key()] = strings.TrimSpace(fmt.Sprintf("%s %s", finding.Status, finding.Reason))
	}
	return words
}

func collect(t *testing.T, root *hostfs.Root, host nodestack.Host) (kvmcheck.Facts, nodestack.Facts) {
	t.Helper()
	hosttest.EmptyPCIDB(t)
	kvm, err := kvmcheck.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	facts := kvmcheck.Collect(t.Context(), kvm)
	return facts, nodestack.Collect(t.Context(), host, facts.Host.Kernel)
}

// recordNode records a node and opens the recording; its runtime has gone by then.
func recordNode(t *testing.T) (root *hostfs.Root, host nodestack.Host, live nodestack.Facts) {
	t.Helper()
	hosttest.EmptyPCIDB(t)
	dir := nodeTree(t, kernelOfThisMachine(t))
	newFakeRuntime().serve(t, dir)
	nodeRoot, node := openStack(t, dir)
	_, live = collect(t, nodeRoot, node)
	kvm, err := kvmcheck.Open(nodeRoot)
	if err != nil {
		t.Fatal(err)
	}
	_, recording, err := kvmcheck.Capture(t.Context(), kvm)
	if err != nil {
		t.Fatal(err)
	}
	if err := nodestack.Record(t.Context(), node, recording); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "node.tar.gz")
	file, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	recording.Manifest.Masked = true
	if err := errors.Join(recording.WriteArchive(file, recording.Manifest), file.Close()); err != nil {
		t.Fatal(err)
	}
	root, host = openStack(t, archive)
	return root, host, live
}

// kernelOfThisMachine is what a host that is no recording runs.
func kernelOfThisMachine(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}

// TestNodeIsReadAndReplayed reads a whole node, and then its recording.
func TestNodeIsReadAndReplayed(t *testing.T) {
	root, host, live := recordNode(t)
	facts, replayed := collect(t, root, host)
	want := nodestack.Evaluate(live, facts, kvmcheck.Profile{})
	if diff := cmp.Diff(want, nodestack.Evaluate(replayed, facts, kvmcheck.Profile{})); diff != "" {
		t.Errorf("the recording says something else than the node (-node +recording):\n%s", diff)
	}
	got := judged(nodestack.Evaluate(replayed, facts, kvmcheck.Profile{}))
	delete(got, "time/sync") // this machine's
	for _, space := range []string{"storage/space-kubelet", "storage/space-images"} {
		if !strings.HasPrefix(got[space], "Ready") && !strings.HasPrefix(got[space], "NotReady SpaceLow") {
			t.Errorf("%s: %s", space, got[space])
		}
		delete(got, space)
	}
	wanted := map[string]string{
		"kubelet/node":              "Ready",
		"kubelet/mount-propagation": "Ready",
		"kubelet/registration":      "Ready",
		"kubelet/pod-resources":     "Ready",
		"kubelet/device-kvm":        "Unknown ReadFailed", // there is no /dev in the tree
		"kubelet/device-tun":        "Unknown ReadFailed",
		"kubelet/device-vhost-net":  "Unknown ReadFailed",
		"runtime/cri":               "Ready",
		"runtime/cgroup-driver":     "Ready",
		"runtime/snapshotter":       "Ready",
		"cni/network":               "Ready",
		"cni/plugins":               "Ready",
		"cni/vm-plugins":            "Ready",
		"cni/multus":                "Ready",
		"storage/ceph":              "Ready",
		"storage/iscsi":             "NotReady StorageToolMissing",
		"storage/multipath":         "NotReady MultipathTakesVolumes",
		"storage/nfs":               "Ready",
		"storage/device-mapper":     "NotReady StorageModuleMissing",
		"guest-agent/channel":       "Unknown GuestAgentInPods",
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Error(diff)
	}
}

// TestUnreadableIsNeverNo fails every single read of a recorded node.
func TestUnreadableIsNeverNo(t *testing.T) {
	root, host, _ := recordNode(t)
	facts, stack := collect(t, root, host)
	before := nodestack.Evaluate(stack, facts, kvmcheck.Profile{})
	if len(before) < 20 {
		t.Fatalf("%d findings", len(before))
	}
	undecided := 0
	for _, operation := range operations(t, root) {
		for _, errno := range []string{"EIO", "EACCES"} {
			faults := root.Recording().Faults
			if _, failed := faults[operation]; failed {
				continue
			}
			faults[operation] = errno
			after := nodestack.Evaluate(nodestack.Collect(t.Context(), host, facts.Host.Kernel), facts, kvmcheck.Profile{})
			delete(faults, operation)
			_, place, _ := strings.Cut(operation, " ")
			undecided += compareTruth(t, operation+": "+errno, place, before, after)
		}
	}
	if undecided < 15 {
		t.Errorf("failed reads made %d findings Unknown: they were not injected", undecided)
	}
}

// compareTruth holds that findings are the same or Unknown, with the place in
// the message, and returns how many became Unknown.
func compareTruth(t *testing.T, what, place string, before, after []kvmcheck.Finding) int {
	t.Helper()
	undecided := 0
	for _, was := range before {
		i := slices.IndexFunc(after, func(f kvmcheck.Finding) bool { return f.Key() == was.Key() })
		if i < 0 {
			t.Errorf("%s: finding %s is gone", what, was.Key())
			continue
		}
		switch is := after[i]; {
		case is.Status == kvmcheck.Unknown && was.Status != kvmcheck.Unknown:
			undecided++
			if !strings.Contains(is.Message, place) {
				t.Errorf("%s: finding %s does not name the path: %s", what, was.Key(), is.Message)
			}
		case is.Status != was.Status:
			t.Errorf("%s: finding %s went from %s to %s: %s", what, was.Key(), was.Status, is.Status, is.Message)
		}
	}
	return undecided
}

// operations lists what the probes did, as the keys of a recording's faults.
func operations(t *testing.T, root *hostfs.Root) []string {
	t.Helper()
	manifest := root.Recording()
	all := make(map[string]bool)
	for dir := range manifest.Listed {
		all["list "+dir] = true
	}
	for _, name := range slices.Concat(manifest.Absent, manifest.Present) {
		for _, op := range []string{"stat ", "read ", "list ", "readlink "} {
			all[op+name] = true
		}
	}
	err := filepath.WalkDir(root.Dir(), func(full string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			all["read /"+strings.TrimPrefix(strings.TrimPrefix(full, root.Dir()), "/")] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(all))
}

// brokenLive fails one of the live answers.
type brokenLive struct {
	nodestack.Live
	broken string
}

var errBroken = errors.New("input/output error")

func (l brokenLive) Running() nodestack.Running {
	running := l.Live.Running()
	switch l.broken {
	case "/proc":
		running.Daemons = kvmcheck.NotKnown[[]nodestack.Daemon]("/proc", errBroken)
	case "/run/libvirt/qemu":
		running.Domains = kvmcheck.NotKnown[[]nodestack.Domain]("/run/libvirt/qemu", errBroken)
	}
	return running
}

func (l brokenLive) Runtime(ctx context.Context, socket string) nodestack.Runtime {
	if l.broken == socket {
		return nodestack.Runtime{Socket: socket, Err: socket + ": no answer"}
	}
	return l.Live.Runtime(ctx, socket)
}

func (l brokenLive) Volume(dir string) kvmcheck.Reading[nodestack.Volume] {
	if l.broken == dir {
		return kvmcheck.NotKnown[nodestack.Volume](dir, errBroken)
	}
	return l.Live.Volume(dir)
}

func (l brokenLive) Program(file string) kvmcheck.Reading[nodestack.Program] {
	if l.broken == file {
		return kvmcheck.NotKnown[nodestack.Program](file, errBroken)
	}
	return l.Live.Program(file)
}

func (l brokenLive) Clock() kvmcheck.Reading[nodestack.Clock] {
	if l.broken == "adjtimex" {
		return kvmcheck.NotKnown[nodestack.Clock]("adjtimex", errBroken)
	}
	return l.Live.Clock()
}

func TestUnansweredIsNeverNo(t *testing.T) {
	root, host, _ := recordNode(t)
	facts, stack := collect(t, root, host)
	before := nodestack.Evaluate(stack, facts, kvmcheck.Profile{})
	for _, broken := range []string{
		"/proc", "/run/libvirt/qemu", socketName, "/var/lib/kubelet", "adjtimex", "/opt/cni/bin/flannel", "/opt/cni/bin/macvlan",
		"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs",
	} {
		host := nodestack.Host{Root: root, Live: brokenLive{host.Live, broken}}
		after := nodestack.Evaluate(nodestack.Collect(t.Context(), host, facts.Host.Kernel), facts, kvmcheck.Profile{})
		if compareTruth(t, broken, broken, before, after) == 0 && broken != "/run/libvirt/qemu" {
			t.Errorf("%s: nothing became Unknown", broken)
		}
	}
}

// TestLyingFilesAreUnknown writes garbage into the files that are parsed.
func TestLyingFilesAreUnknown(t *testing.T) {
	for file, check := range map[string]string{
		"/proc/1/mountinfo":             "kubelet/mount-propagation",
		"/etc/cni/net.d/00-multus.conf": "cni/network",

		"/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint": "kubelet/device-tun",
	} {
		for name, garbage := range map[string]string{"nothing": "", "words": "no idea", "binary": "\x00\xff\x00", "half": `{"Data":`} {
			t.Run(filepath.Base(file)+" holds "+name, func(t *testing.T) {
				root, host, _ := recordNode(t)
				if err := os.WriteFile(filepath.Join(root.Dir(), file), []byte(garbage), 0o600); err != nil {
					t.Fatal(err)
				}
				facts, stack := collect(t, root, host)
				for _, finding := range nodestack.Evaluate(stack, facts, kvmcheck.Profile{}) {
					if finding.Key() == check && (finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, file)) {
						t.Errorf("got %s: %s", finding.Status, finding.Message)
					}
				}
			})
		}
	}
}

// TestHiddenProcessesAreNoAbsence takes away what shows that all are to be seen.
func TestHiddenProcessesAreNoAbsence(t *testing.T) {
	for name, file := range map[string]string{"hidden": "", "of a container": "sh\n"} {
		t.Run(name, func(t *testing.T) {
			dir := nodeTree(t, "x")
			err := errors.Join(os.RemoveAll(filepath.Join(dir, "proc/100")), os.Remove(filepath.Join(dir, "proc/2/comm")))
			if file != "" {
				err = errors.Join(err, os.WriteFile(filepath.Join(dir, "proc/2/comm"), []byte(file), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			_, host := openStack(t, dir)
			stack := nodestack.Collect(t.Context(), host, "x")
			finding := nodestack.Evaluate(stack, kvmcheck.Facts{}, kvmcheck.Profile{})[0]
			if finding.Key() != "kubelet/node" || finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, "/proc") {
				t.Errorf("got %+v", finding)
			}
		})
	}
}

// TestThisMachineAnswers asks the machine of the test itself.
func TestThisMachineAnswers(t *testing.T) {
	_, host := openStack(t, "/")
	if clock := host.Live.Clock(); !clock.Known {
		t.Error(clock.Err)
	}
	volume := host.Live.Volume("/var")
	if !volume.Known || volume.Value.Bytes == 0 || volume.Value.FreeBytes > volume.Value.Bytes {
		t.Errorf("%+v", volume)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if program := host.Live.Program(exe); !program.Value.Executable || program.Value.Module != "github.com/virtnode/nodeagent" {
		t.Errorf("%+v", program)
	}
	if program := host.Live.Program("/nonexistent"); program.Known || !strings.Contains(program.Err, "/nonexistent") {
		t.Errorf("%+v", program)
	}
	if daemons := host.Live.Running().Daemons; !daemons.Known {
		t.Error(daemons.Err)
	}
}
