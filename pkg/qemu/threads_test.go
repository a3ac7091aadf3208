package qemu

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tasks makes the details of threads that process leaves out.
func (h *fakeHost) tasks(pid int, delay, voluntary uint64, tids ...int) {
	h.t.Helper()
	for _, tid := range tids {
		dir := fmt.Sprintf("/proc/%d/task/%d", pid, tid)
		h.write(dir+"/schedstat", fmt.Sprintf("1 %d 1\n", delay))
		h.write(dir+"/status", fmt.Sprintf("Name:\tx\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t%d\n", voluntary, 2*voluntary))
	}
}

func TestThreadsTellDelayAndSwitches(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00", 100, thread{"CPU 0/KVM", 20}, thread{"CPU 1/KVM", 30}, thread{"IO iothread1", 4}, thread{"vhost-10", 3})
	h.tasks(10, 1000, 5, 10, 11, 12, 13, 14)
	p := scan(t, h.scanner(newClock()))[0].Process
	used := func(sum, system, threads uint64) Usage {
		return Usage{CPU: ticks(sum), System: ticks(system), Delay: Some(1000 * threads), Voluntary: Some(5 * threads), Involuntary: Some(10 * threads)}
	}
	want := [len(Roles)]Usage{
		RoleOther: spent(36, 11), RoleEmulator: used(7, 1, 1), RoleVCPU: used(50, 12, 2), RoleIOThread: used(4, 1, 1), RoleVhost: used(3, 0, 1),
	}
	if diff := cmp.Diff(want, p.Threads); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]VCPUThread{{0, used(20, 5, 1)}, {1, used(30, 7, 1)}}, p.VCPUs); diff != "" {
		t.Errorf("virtual CPUs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]NamedThread{{"iothread1", used(4, 1, 1)}}, p.IOThreads); diff != "" {
		t.Errorf("I/O threads (-want +got):\n%s", diff)
	}

	s := newScanner(Options{Root: h.root, Now: newClock().Now})
	t.Cleanup(s.close)
	if p := scan(t, s)[0].Process; p.VCPUs[0].Voluntary.Set || !p.VCPUs[0].Delay.Set {
		t.Errorf("nobody wants context switches: %+v", p.VCPUs)
	}
}

func TestAVirtualCPUThatIsPluggedInAgainGoesOn(t *testing.T) {
	h := newHost(t)
	s := h.scanner(newClock())
	read := func(total uint64, threads ...thread) map[uint32]uint64 {
		t.Helper()
		h.process(10, 1, "qemu-kvm\x00", total, threads...)
		found := make(map[uint32]uint64)
		for _, cpu := range scan(t, s)[0].VCPUs {
			found[cpu.Index] = cpu.Time.V / uint64(tick)
		}
		return found
	}
	for i, step := range []struct {
		threads []thread
		want    map[uint32]uint64
	}{
		{[]thread{{"CPU 0/KVM", 10}, {"CPU 1/KVM", 30}}, map[uint32]uint64{0: 10, 1: 30}},
		{[]thread{{"CPU 0/KVM", 11}}, map[uint32]uint64{0: 11}},
		{[]thread{{"CPU 0/KVM", 12}, {"CPU 1/KVM", 2}}, map[uint32]uint64{0: 12, 1: 32}},
		{[]thread{{"CPU 0/KVM", 12}, {"CPU 1/KVM", 4}}, map[uint32]uint64{0: 12, 1: 34}},
	} {
		if got := read(200, step.threads...); !maps.Equal(got, step.want) {
			t.Errorf("step %d: have %v, want %v", i, got, step.want)
		}
	}
}

// TestNamesOfThreadsAreNotTrusted gives threads names that a process may choose
// to harm its reader with.
func TestNamesOfThreadsAreNotTrusted(t *testing.T) {
	h := newHost(t)
	h.process(10, 1, "qemu-kvm\x00", 100, thread{"CPU 0/KVM", 1}, thread{"CPU 0/x", 2}, thread{"CPU 99999999999/", 4}, thread{"CPU -1/KVM", 8},
		thread{"CPU 9 9/", 16}, thread{"IO a\nb", 1}, thread{"IO a\nb", 1}, thread{"IO ", 1}, thread{") S 1 (", 1})
	vm := scan(t, h.scanner(newClock()))[0]
	if len(vm.VCPUs) != 1 || vm.VCPUs[0].Time != ticks(3) {
		t.Errorf("two threads of one virtual CPU: %+v", vm.VCPUs)
	}
	if got := vm.Process.Threads[RoleVCPU].CPU; got != ticks(31) {
		t.Errorf("the role has %+v", got)
	}
	var names []string
	for _, io := range vm.Process.IOThreads {
		names = append(names, io.Name)
	}
	if !slices.Equal(names, []string{"", "a\nb"}) {
		t.Errorf("I/O threads %q: each name must be there once", names)
	}
}

// TestAThreadThatGetsItsNameLate is a virtual CPU seen before it has one.
func TestAThreadThatGetsItsNameLate(t *testing.T) {
	h, now := newHost(t), newClock()
	s := h.scanner(now)
	h.process(10, 1, "qemu-kvm\x00", 50, thread{"qemu-system-x86", 5}, thread{"worker", 1})
	if vm := scan(t, s)[0]; len(vm.VCPUs) != 0 {
		t.Fatalf("%+v", vm.VCPUs)
	}
	h.process(10, 1, "qemu-kvm\x00", 50, thread{"CPU 0/KVM", 6}, thread{"worker", 1})
	now.advance(2 * lasting)
	vm := scan(t, s)[0]
	if len(vm.VCPUs) != 1 || vm.Process.Threads[RoleVCPU].CPU != ticks(6) {
		t.Errorf("%+v", vm)
	}
}

func TestDescriptorsAreBoundedAndGivenBack(t *testing.T) {
	h := newHost(t)
	s := h.scanner(newClock())
	for i := range 20 {
		h.process(100+10*i, 1, fmt.Sprintf("qemu-kvm\x00-name\x00vm%d\x00", i), 50, thread{"CPU 0/KVM", 6})
		h.tasks(100+10*i, 7, 7, 100+10*i, 101+10*i)
	}
	before := descriptors(t)
	scan(t, s)
	if opened := descriptors(t) - before; opened != s.open || opened != 20*8 { // stat, status; twice stat, schedstat, status
		t.Errorf("%d descriptors open, %d known, want %d", opened, s.open, 20*8)
	}
	for i := range 19 {
		h.end(fmt.Sprintf("/proc/%d", 100+10*i))
	}
	if vms := scan(t, s); len(vms) != 1 || descriptors(t)-before != 8 || s.open != 8 {
		t.Errorf("%d machines with %d descriptors, %d known", len(vms), descriptors(t)-before, s.open)
	}
	s.close()
	if left := descriptors(t) - before; left != 0 || s.open != 0 {
		t.Errorf("%d descriptors left, %d known", left, s.open)
	}

	few := h.scanner(newClock())
	few.limit = 3
	for range 2 {
		vm := scan(t, few)[0]
		if vm.Process.VCPUs[0].Delay != Some(7) || descriptors(t)-before != 3 || few.open != 3 {
			t.Errorf("%+v with %d descriptors, %d known", vm.Process.VCPUs, descriptors(t)-before, few.open)
		}
	}
}
