package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const devHeading = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"

// hold gives a process a descriptor.
func (h *fakeHost) hold(pid, fd, target, about string) {
	h.t.Helper()
	h.link("/proc/"+pid+"/fd/"+fd, target)
	h.write("/proc/"+pid+"/fdinfo/"+fd, "pos:\t0\nflags:\t0104002\n"+about)
}

func TestTapsCountAsTheGuestDoes(t *testing.T) {
	h, now := newHost(t), newClock()
	s := h.scanner(now)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.link("/proc/10/ns/net", "net:[4026531833]")
	h.hold("10", "3", "/dev/net/tun", "iff:\ttap7\n")
	h.hold("10", "4", "/dev/net/tun", "iff:\ttap7\n") // its second queue
	h.hold("10", "5", "/dev/net/tun", "")             // bound to nothing
	h.hold("10", "6", "/dev/net/tun", "iff:\tgone0\n")
	h.hold("10", "7", "/dev/tap12", "")
	h.hold("10", "8", "socket:[99]", "")
	h.write("/proc/10/net/dev_mcast", "2    eth0            1     0     01005e000001\n12   macvtap0        1     0     01005e000001\n")
	h.write("/proc/10/net/dev", devHeading+
		"  tap7: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nmacvtap0: 21 22 23 24 0 0 0 0 29 30 31 32 0 0 0 0\n    lo: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
	h.process(20, 2, "qemu-kvm\x00-name\x00db\x00", 50)
	h.link("/proc/20/ns/net", "net:[4026531833]")
	h.hold("20", "3", "/dev/net/tun", "iff:\ttap8\n")

	traffic := func(first uint64) Traffic {
		return Traffic{Bytes: Some(first), Packets: Some(first + 1), Errors: Some(first + 2), Drops: Some(first + 3)}
	}
	want := []Interface{{Name: "macvtap0", Receive: traffic(21), Transmit: traffic(29)}, {Name: "tap7", Receive: traffic(9), Transmit: traffic(1)}}
	vms := scan(t, s)
	if diff := cmp.Diff(want, vms[0].Interfaces); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(vms[1].Interfaces) != 0 {
		t.Errorf("a tap that is not there: %+v", vms[1].Interfaces)
	}
	h.write("/proc/10/net/dev", devHeading+"  tap7: 2 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  tap8: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nbroken\n")
	vms = scan(t, s)
	if len(vms[0].Interfaces) != 1 || vms[0].Interfaces[0].Transmit.Bytes != Some(2) || len(vms[1].Interfaces) != 1 || s.unused != 1 {
		t.Errorf("%+v, %+v, %d lines unused", vms[0].Interfaces, vms[1].Interfaces, s.unused)
	}
}

// TestWhatAProcessHasIsFoundAnew: its descriptors' numbers say whether to look
// at them, and a tap that is gone, and time.
func TestWhatAProcessHasIsFoundAnew(t *testing.T) {
	h, now := newHost(t), newClock()
	s := h.scanner(now)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.hold("10", "3", "/dev/net/tun", "iff:\ttap1\n")
	devices := func(names ...string) {
		for i, name := range names {
			names[i] = name + ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
		}
		h.write("/proc/10/net/dev", devHeading+strings.Join(names, ""))
	}
	look := func(what string, want ...string) {
		t.Helper()
		now.advance(2 * lasting)
		var got []string
		for _, nic := range scan(t, s)[0].Interfaces {
			got = append(got, nic.Name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	devices("tap1", "tap2", "tap3", "tap4")
	look("at first", "tap1")
	look("again", "tap1")
	h.hold("10", "4", "/dev/net/tun", "iff:\ttap2\n")
	look("one more descriptor", "tap1", "tap2")
	look("again", "tap1", "tap2")
	look("by its signs", "tap1", "tap2")

	h.write("/proc/10/fdinfo/4", "iff:\ttap3\n")
	devices("tap1", "tap3", "tap4")
	look("tap2 has gone", "tap1")
	look("tap3 has its number", "tap1", "tap3")

	h.write("/proc/10/fdinfo/3", "iff:\ttap4\n")
	look("nothing shows it", "tap1", "tap3")
	for range mostCalm {
		now.advance(2 * lasting)
		scan(t, s)
	}
	look("in time", "tap3", "tap4")
}

// pfs is a host's physical functions.
type pfs map[string]map[int]VFCounters

func (p pfs) VFCounters(pf string) (map[int]VFCounters, error) {
	if counters := p[pf]; counters != nil {
		return counters, nil
	}
	return nil, errors.New("no such device")
}

func TestVirtualFunctionsHaveTheirPFsCounters(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.hold("10", "3", "/dev/vfio/vfio", "")
	h.hold("10", "4", "/dev/vfio/17", "")
	h.hold("10", "5", "/dev/vfio/devices/vfio3", "")
	h.hold("10", "6", "/dev/vfio/18", "") // a GPU
	const pci = "/sys/bus/pci/devices/"
	h.write("/sys/kernel/iommu_groups/17/devices/0000:65:02.1/class", "")
	h.write("/sys/kernel/iommu_groups/18/devices/0000:01:00.0/class", "")
	h.link("/sys/class/vfio-dev/vfio3/device", "../../../0000:66:00.0")
	h.link(pci+"0000:65:02.1/physfn", "../0000:65:00.0")
	h.link(pci+"0000:66:00.0/physfn", "../0000:65:00.1")
	h.write(pci+"0000:65:00.0/net/ens1f0/mtu", "")
	h.write(pci+"0000:65:00.1/net/ens1f1/mtu", "")
	h.link(pci+"0000:65:00.0/virtfn0", "../0000:65:02.0")
	h.link(pci+"0000:65:00.0/virtfn1", "../0000:65:02.1")
	h.link(pci+"0000:65:00.1/virtfn4", "../0000:66:00.0")

	counters := VFCounters{Receive: Traffic{Bytes: Some(7)}, Multicast: Some(8)}
	s := newScanner(Options{Root: h.root, Now: newClock().Now, VFs: pfs{"ens1f0": {0: {}, 1: counters}}})
	t.Cleanup(s.close)
	want := []VF{{Address: "0000:65:02.1", PF: "ens1f0", Index: 1, VFCounters: counters}, {Address: "0000:66:00.0", PF: "ens1f1", Index: 4}}
	for range 2 {
		if diff := cmp.Diff(want, scan(t, s)[0].Process.VFs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// stuck is a driver that never answers.
type stuck struct{ asked atomic.Int32 }

func (s *stuck) VFCounters(string) (map[int]VFCounters, error) {
	s.asked.Add(1)
	select {}
}

// TestADriverThatHangsCostsItsCountersOnly asks it once, and goes on.
func TestADriverThatHangsCostsItsCountersOnly(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.hold("10", "4", "/dev/vfio/17", "")
	const pci = "/sys/bus/pci/devices/"
	h.write("/sys/kernel/iommu_groups/17/devices/0000:65:02.1/class", "")
	h.link(pci+"0000:65:02.1/physfn", "../0000:65:00.0")
	h.write(pci+"0000:65:00.0/net/ens1f0/mtu", "")
	h.link(pci+"0000:65:00.0/virtfn1", "../0000:65:02.1")
	driver := new(stuck)
	s := newScanner(Options{Root: h.root, Now: newClock().Now, VFs: driver})
	t.Cleanup(s.close)
	for range 3 {
		vm := scan(t, s)[0]
		if diff := cmp.Diff([]VF{{Address: "0000:65:02.1", PF: "ens1f0", Index: 1}}, vm.Process.VFs); diff != "" || !vm.Process.Resident.Set {
			t.Errorf("(-want +got):\n%s%+v", diff, vm.Process)
		}
	}
	if asked := driver.asked.Load(); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestAProcessThatHidesItsDescriptors has what needs none of them.
func TestAProcessThatHidesItsDescriptors(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00-name\x00web\x00", 50)
	h.write("/proc/10/fd", "not a directory")
	h.link("/proc/10/cgroup", "/loop")
	h.link("/loop", "loop")
	vm := scan(t, h.scanner(newClock()))[0]
	if len(vm.Interfaces) != 0 || vm.Process.Cgroup != (Cgroup{}) || !vm.Process.Resident.Set {
		t.Errorf("%+v", vm)
	}
}

// TestFilesThatHangCostTheirMachineOnly has more command lines that hang than a
// collection has patience for, and descriptors that hang.
func TestFilesThatHangCostTheirMachineOnly(t *testing.T) {
	h := newHost(t)
	manifest := hostfs.Manifest{Version: 1, Listed: map[string][]string{"/proc": {"stat"}}, Faults: make(map[string]string)}
	for pid := 1; pid <= 5; pid++ {
		h.process(10*pid, uint64(pid), fmt.Sprintf("qemu-kvm\x00-name\x00vm%d\x00", pid), 50)
		dir := fmt.Sprintf("/proc/%d", 10*pid)
		manifest.Listed["/proc"] = append(manifest.Listed["/proc"], strconv.Itoa(10*pid))
		manifest.Listed[dir+"/task"] = []string{strconv.Itoa(10 * pid)}
		if pid <= 2 {
			manifest.Faults["read "+dir+"/cmdline"] = "HANG"
		} else if pid == 4 {
			manifest.Faults["readlink "+dir+"/ns/net"] = "HANG"
		}
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	h.write("/nodeagent-capture.json", string(text))
	root, err := hostfs.Open(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }() // which lets go of what hangs
	s := newScanner(Options{Root: root, Now: newClock().Now})
	defer s.close()
	var names []string
	for range 4 { // each finds out one place that hangs, and the last reads the rest
		names = nil
		for _, vm := range scan(t, s) {
			names = append(names, vm.Name)
		}
	}
	if !slices.Equal(names, []string{"vm3", "vm4", "vm5"}) {
		t.Errorf("have %q", names)
	}
	if hung := root.Hung(); len(hung) != 3 {
		t.Errorf("%q hang", hung)
	}
}

func TestTheKernelsNumberWins(t *testing.T) {
	vm := VM{
		Name: "web", VCPUs: []VCPU{{Index: 1, State: VCPURunning, Time: Some(1), Wait: Some(2), Delay: Some(3)}},
		Interfaces: []Interface{{Name: "tap0", Receive: Traffic{Bytes: Some(1)}}, {Name: "vhost0", Receive: Traffic{Bytes: Some(2)}}},
	}
	vm.join(&VM{
		VCPUs: []VCPU{{Index: 0, Time: Some(10)}, {Index: 1, Time: Some(20)}}, Process: &Process{PID: 9},
		Interfaces: []Interface{{Name: "tap0", Receive: Traffic{Bytes: Some(5)}}, {Name: "tap1"}},
	}, nil)
	want := VM{
		Name: "web", VCPUs: []VCPU{{Index: 0, Time: Some(10)}, {Index: 1, State: VCPURunning, Time: Some(20), Wait: Some(2), Delay: Some(3)}},
		Interfaces: []Interface{{Name: "tap0", Receive: Traffic{Bytes: Some(5)}}, {Name: "vhost0", Receive: Traffic{Bytes: Some(2)}}, {Name: "tap1"}},
		Process:    &Process{PID: 9},
	}
	if diff := cmp.Diff(want, vm); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseDeviceName(t *testing.T) {
	data := []byte("12   eth0  1 0 01005e000001\n2 tap2\n3\n")
	for index, want := range map[string]string{"12": "eth0", "2": "tap2", "1": "", "3": "", "": ""} {
		if got := parseDeviceName(data, index); got != want {
			t.Errorf("index %q: have %q, want %q", index, got, want)
		}
	}
	if got := parseTunName([]byte("pos:\t0\niff:\t" + strings.Repeat("x", 15) + "\n")); got != strings.Repeat("x", 15) {
		t.Errorf("have %q", got)
	}
}
