package qemu

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/virtnode/nodeagent/internal/bpf"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// kernelPrograms are the real ones.
type kernelPrograms struct {
	t      testing.TB
	loaded *bpf.Programs
	round  int
	mute   func(round int) bool // nil: never
	thread Thread
	group  Group
}

func loadPrograms(t testing.TB) *kernelPrograms {
	t.Helper()
	var missing error
	if os.Geteuid() != 0 {
		missing = errors.New("BPF programs need root")
	} else if !exists("/sys/kernel/btf/vmlinux") {
		missing = errors.New("the kernel has no BTF")
	}
	hosttest.Need(t, hosttest.BPF, missing)
	p := &kernelPrograms{t: t, loaded: bpf.Load(512)}
	t.Cleanup(func() {
		if err := p.loaded.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, state := range p.loaded.States() {
		if state.Err != nil {
			t.Fatal(state.Err)
		}
	}
	return p
}

func (p *kernelPrograms) track(of []ProcessID) {
	processes := make([]bpf.Process, len(of))
	for i, id := range of {
		processes[i] = bpf.Process(id)
	}
	if err := p.loaded.Track(processes); err != nil {
		p.t.Error(err)
	}
}

func (p *kernelPrograms) Delays(of []ProcessID, _ func(int, *Histogram)) { p.track(of) }

func (p *kernelPrograms) Threads(of []ProcessID, each func(*Thread)) bool {
	p.track(of)
	p.round++
	if p.mute != nil && p.mute(p.round) {
		return false
	}
	all, err := p.loaded.Threads(func(t *bpf.Thread) {
		p.thread = Thread{
			PID: t.PID, TID: t.TID, Start: t.Start, Delay: t.Delay, Waits: t.Waits, Voluntary: t.Voluntary, Involuntary: t.Involuntary,
			Behind: t.Behind, Groups: t.Groups, Name: t.Name, Used: Account(t.Used),
		}
		if g := t.Group; g != nil {
			p.group = Group{Now: g.Now, Threads: g.Threads, Torn: g.Torn, Pages: g.Pages, HugePages: g.HugePages, Files: g.Files, Ended: Account(g.Ended)}
			p.thread.Group = &p.group
		}
		each(&p.thread)
	})
	if err != nil {
		p.t.Error(err)
	}
	return all
}

// TestNoRealCounterGoesBack changes between the two ways, while threads come
// and go and processes end.
func TestNoRealCounterGoesBack(t *testing.T) {
	programs := loadPrograms(t)
	s := realScanner(t)
	s.programs = programs
	programs.mute = func(round int) bool { return round%3 == 0 }
	dir := t.TempDir()
	var machines []*pretender
	for i := range 3 {
		names := []string{"CPU 0/KVM", "CPU 1/KVM", "IO iothread1"}
		for worker := range 40 {
			names = append(names, fmt.Sprintf("worker%d", worker))
		}
		machines = append(machines, pretendQEMU(t, dir, fmt.Sprintf("vm%d", i), nil, names...))
	}
	before := make(map[int]map[string]uint64)
	heard := 0
	for round := range 40 {
		for _, p := range machines {
			p.order(fmt.Sprintf("burn CPU %d/KVM 3", round%2))
			if worker := fmt.Sprintf("worker%d", round); round%4 == 0 {
				p.order("burn " + worker + " 12")
				p.order("end " + worker)
				p.order("start " + worker)
			}
		}
		doomed := pretendQEMU(t, dir, "doomed", nil, "CPU 0/KVM")
		readOne(t, s, doomed.pid())
		go doomed.cmd.Process.Kill() //nolint:errcheck // it may have ended
		for _, p := range machines {
			vm := readOne(t, s, p.pid())
			if vm == nil {
				t.Fatalf("round %d: process %d is no VM", round, p.pid())
			}
			if s.processes[p.pid()].qemu.heard {
				heard++
			}
			now := countersOf(vm)
			for name, n := range before[p.pid()] {
				if now[name] < n {
					t.Fatalf("round %d: %s of process %d went from %d back to %d", round, name, p.pid(), n, now[name])
				}
			}
			before[p.pid()] = now
		}
	}
	if heard < 40 {
		t.Errorf("programs were believed %d times of 80", heard)
	}
	programs.mute = nil
	for _, p := range machines {
		first, err := parseStat([]byte(p.file("stat")))
		if err != nil {
			t.Fatal(err)
		}
		vm := readOne(t, s, p.pid())
		then, err := parseStat([]byte(p.file("stat")))
		if err != nil {
			t.Fatal(err)
		}
		between(t, "CPU time", Some(first.user+first.system), vm.CPU.Time, Some(then.user+then.system+2*uint64(tick)))
		between(t, "minor faults", Some(first.minor), vm.Process.MinorFaults, Some(then.minor))
	}
}

// countersOf names all that must not go back.
func countersOf(vm *VM) map[string]uint64 {
	all := map[string]uint64{
		"CPU": vm.CPU.Time.V, "user": vm.CPU.User.V, "system": vm.CPU.System.V,
		"minor faults": vm.Process.MinorFaults.V, "major faults": vm.Process.MajorFaults.V,
		"read": vm.Process.IO.ReadBytes.V, "written": vm.Process.IO.WriteBytes.V, "read calls": vm.Process.IO.ReadCalls.V,
		"write calls": vm.Process.IO.WriteCalls.V, "read characters": vm.Process.IO.ReadChars.V, "written characters": vm.Process.IO.WriteChars.V,
	}
	add := func(name string, used *Usage) {
		all[name], all[name+" user"], all[name+" system"] = used.CPU.V, used.User().V, used.System.V
		all[name+" delay"], all[name+" voluntary"], all[name+" involuntary"] = used.Delay.V, used.Voluntary.V, used.Involuntary.V
	}
	for role := range vm.Process.Threads {
		add(Roles[role], &vm.Process.Threads[role])
	}
	for i := range vm.Process.VCPUs {
		add(fmt.Sprintf("CPU %d", vm.Process.VCPUs[i].Index), &vm.Process.VCPUs[i].Usage)
	}
	return all
}

// TestMemoryThatComesAndGoes is seen at once, though status is not read when
// nothing shows a change.
func TestMemoryThatComesAndGoes(t *testing.T) {
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM")
	s := realScanner(t)
	s.programs = loadPrograms(t)
	resident := func() int { return int(readOne(t, s, p.pid()).Process.Resident.V >> 20) }
	resident()
	least := resident()
	for _, mib := range []int{100, 20, 60, 0} {
		p.order(fmt.Sprintf("have %d", mib))
		if got := resident(); got < least+mib-6 || got > least+mib+6 {
			t.Errorf("%d MiB more than %d MiB are resident: have %d MiB", mib, least, got)
		}
	}
	kept := 0
	for range 20 {
		due := s.processes[p.pid()].qemu.memory.due
		resident()
		if s.processes[p.pid()].qemu.memory.due.Equal(due) {
			kept++
		}
	}
	if kept < 10 {
		t.Errorf("status of a process at rest was read %d times of 20", 20-kept)
	}
}
