package sriov_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/sriov"
)

// observe reads a host that can be read whole.
func observe(t testing.TB, host sriov.Host) sriov.State {
	t.Helper()
	state, err := sriov.Observe(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// bindVFIO gives a VF to vfio-pci as a person would.
func bindVFIO(t *testing.T, f *fake, address string) {
	t.Helper()
	dir := devicesDir + address
	for _, write := range [][2]string{
		{dir + "/driver_override", "vfio-pci"},
		{dir + "/driver/unbind", address},
		{"/sys/bus/pci/drivers_probe", address},
		{dir + "/driver_override", "\n"},
	} {
		if err := f.Write(t.Context(), write[0], write[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func makeVFs(t *testing.T, f *fake, count string) {
	t.Helper()
	if err := f.Write(t.Context(), devicesDir+"0000:01:00.0/sriov_numvfs", count); err != nil {
		t.Fatal(err)
	}
}

const (
	firstVF  = "0000:11:10.0"
	secondVF = "0000:11:10.2"
)

func TestFreshVFsHaveNoUsers(t *testing.T) {
	f := newFake(t, 2)
	makeVFs(t, f, "4")
	bindVFIO(t, f, firstVF)
	state := observe(t, f.host())
	if len(state.PFs) != 2 || len(state.PFs[0].VFs) != 4 || len(state.PFs[1].VFs) != 0 {
		t.Fatalf("got %+v", state)
	}
	for _, vf := range state.PFs[0].VFs {
		if len(vf.Users) != 0 || vf.IsolationProblem() != "" || vf.Attributes.SpoofCheck == nil {
			t.Errorf("got %+v", vf)
		}
	}
	if len(state.PFs[0].Users)+len(state.PFs[1].Users) != 0 || !state.PFs[0].Autoprobe {
		t.Errorf("got %+v", state)
	}
}

// TestUseIsSeen has each kind of evidence alone, and wants it for the first VF
// and, unless nobody can tell, not for the second.
func TestUseIsSeen(t *testing.T) {
	held := func(link string) func(*fake) {
		return func(f *fake) {
			bindVFIO(f.t, f, secondVF)
			bindVFIO(f.t, f, firstVF)
			f.file("/proc/812/comm", "qemu-kvm\n")
			f.link("/proc/812/fd/7", link)
			f.link("/proc/812/fd/8", "/dev/vfio/vfio")
		}
	}
	for name, test := range map[string]struct {
		given  func(*fake)
		want   string
		others bool // the second VF may be meant, too
	}{
		"a pod has it": {
			given: func(f *fake) { f.pods[firstVF] = []string{"vms/fast"} },
			want:  "pod vms/fast has it (kubelet.sock)",
		},
		"the kubelet does not answer": {
			given:  func(f *fake) { f.podsErr = errors.New("no answer") },
			want:   "nobody can tell whether it is in use: no answer (kubelet.sock)",
			others: true,
		},
		"sriov-cni has given it away": {
			given: func(f *fake) { f.file("/var/lib/cni/sriov/pci/"+firstVF, "/var/run/netns/blue") },
			want:  "sriov-cni has given it to /var/run/netns/blue (/var/lib/cni/sriov/pci/" + firstVF + ")",
		},
		"sriov-cni's notes cannot be listed": {
			given:  func(f *fake) { f.file("/var/lib/cni/sriov/pci", "") },
			want:   "nobody can tell whether it is in use: list /var/lib/cni/sriov/pci: not a directory (/var/lib/cni/sriov/pci)",
			others: true,
		},
		"its interface is in another namespace": {
			given: func(f *fake) { f.remove(devicesDir + firstVF + "/net") },
			want:  "driver igbvf is bound, but its interface is not here: it is in another network namespace, such as a pod's (" + devicesDir + firstVF + "/net)",
		},
		"a process holds its group": {
			given: held("/dev/vfio/11"),
			want:  "VM web, process 812 holds /dev/vfio/11 (/proc/812/fd/7)",
		},
		"a process holds its device": {
			given: held("/dev/vfio/devices/vfio1"),
			want:  "VM web, process 812 holds /dev/vfio/devices/vfio1 (/proc/812/fd/7)",
		},
		"a process holds a device without a name": {
			given:  held("anon_inode:[vfio-device]"),
			want:   "VM web, process 812 holds a VFIO device, which may be this one (/proc/812/fd/7)",
			others: true,
		},
		"a process's descriptors cannot be listed": {
			given: func(f *fake) {
				bindVFIO(f.t, f, firstVF)
				bindVFIO(f.t, f, secondVF)
				f.file("/proc/812/fd", "")
			},
			want:   "nobody can tell whether it is in use: list /proc/812/fd: not a directory (/proc/812/fd)",
			others: true,
		},
		"the host's processes are not to be seen": {
			given: func(f *fake) {
				bindVFIO(f.t, f, firstVF)
				bindVFIO(f.t, f, secondVF)
				f.file("/proc/2/comm", "sh\n")
			},
			want:   "nobody can tell whether it is in use: no kernel thread: this is not the host's /proc; run with hostPID (/proc/2/comm)",
			others: true,
		},
		"the host has an address on it": {
			given: func(f *fake) { f.uses["eth1"] = []string{"address 10.7.0.1/24"} },
			want:  "address 10.7.0.1/24 (eth1)",
		},
		"the node hangs on it": {
			given: func(f *fake) { f.uplinks["eth1"] = "default route via 10.0.0.1" },
			want:  "the node's uplink: default route via 10.0.0.1 (eth1)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, 1)
			makeVFs(t, f, "2")
			test.given(f)
			state := observe(t, f.host())
			first, second := state.PFs[0].VFs[0], state.PFs[0].VFs[1]
			if len(first.Users) != 1 || first.Users[0].String() != test.want {
				t.Errorf("got %v\nwant %s", first.Users, test.want)
			}
			if test.others != (len(second.Users) == 1) || len(second.Users) > 1 {
				t.Errorf("the second VF has %v", second.Users)
			}
		})
	}
}

// TestProcessThatEndsMeanwhileIsNoUser has what a /proc that changes shows.
func TestProcessThatEndsMeanwhileIsNoUser(t *testing.T) {
	f := newFake(t, 1)
	makeVFs(t, f, "1")
	bindVFIO(t, f, firstVF)
	f.folder("/proc/812") // its fd is gone already
	if users := observe(t, f.host()).PFs[0].VFs[0].Users; len(users) != 0 {
		t.Errorf("got %v", users)
	}
}

func TestNeighboursOfAGroup(t *testing.T) {
	f := newFake(t, 1)
	f.shared = true
	makeVFs(t, f, "2")
	f.file(devicesDir+"0000:00:1c.0/class", "0x060400\n")
	f.link("/sys/kernel/iommu_groups/10/devices/0000:00:1c.0", "../../../../bus/pci/devices/0000:00:1c.0")
	vf := observe(t, f.host()).PFs[0].VFs[0]
	if got, want := strings.Join(vf.Neighbours, " "), "0000:01:00.0 "+secondVF; got != want {
		t.Errorf("got %s, want %s: the bridge only forwards", got, want)
	}
	if problem := vf.IsolationProblem(); !strings.Contains(problem, "shares IOMMU group 10 with 0000:01:00.0, "+secondVF) {
		t.Error(problem)
	}
	f.remove(devicesDir + firstVF + "/iommu_group")
	if problem := observe(t, f.host()).PFs[0].VFs[0].IsolationProblem(); !strings.Contains(problem, "is in no IOMMU group") {
		t.Error(problem)
	}
}

// TestUnreadablePFIsLeftOut wants an error rather than a PF of which something
// decisive is not known.
func TestUnreadablePFIsLeftOut(t *testing.T) {
	for name, spoil := range map[string]func(*fake){
		"autoprobe":       func(f *fake) { f.file(devicesDir+"0000:01:00.0/sriov_drivers_autoprobe", "perhaps\n") },
		"driver_override": func(f *fake) { f.must(os.Remove(f.path(devicesDir + firstVF + "/driver_override"))) },
		"attributes":      func(f *fake) { f.pfs["0000:01:00.0"].netdev = "eth9" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, 2)
			makeVFs(t, f, "1")
			spoil(f)
			state, err := sriov.Observe(t.Context(), f.host())
			if err == nil || !strings.Contains(err.Error(), "observe PF 0000:01:00.0 (eth0)") || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
			if len(state.PFs) != 1 || state.PFs[0].Address != "0000:02:00.0" {
				t.Errorf("got %+v", state.PFs)
			}
		})
	}
}

func TestInspectSaysWhatCanBeGivenAway(t *testing.T) {
	f := newFake(t, 1)
	makeVFs(t, f, "2")
	bindVFIO(t, f, firstVF)
	f.file("/sys/class/net/eth0/operstate", "down\n")
	pf, err := sriov.Inspect(f.root, "0000:01:00.0")
	if err != nil || !pf.LinkDown || len(pf.VFs) != 2 || !pf.VFs[0].IsVFIO() || pf.VFs[1].IsVFIO() || pf.VFs[0].IsolationProblem() != "" {
		t.Errorf("got %+v, %v", pf, err)
	}
	if _, err := sriov.Inspect(f.root, "0000:09:00.0"); err == nil {
		t.Error("a PF that is not there was inspected")
	}
}
