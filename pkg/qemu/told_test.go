package qemu

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// machine is a made-up QEMU, of which /proc and the programs tell the same.
type machine struct {
	h       *fakeHost
	pid     int
	start   uint64 // ticks
	names   []string
	runtime []uint64 // of each thread in nanoseconds, of the main one first
	ended   uint64   // likewise, of threads that have ended
	faults  uint64
	read    uint64 // bytes
	pages   int64
}

// write writes what /proc says: whole ticks.
func (m *machine) write() {
	m.h.t.Helper()
	var threads []thread
	sum := m.ended
	for i, ns := range m.runtime {
		sum += ns
		if i > 0 {
			threads = append(threads, thread{m.names[i-1], ns / uint64(tick)})
		}
	}
	m.h.process(m.pid, m.start, fmt.Sprintf("qemu-kvm\x00-name\x00vm%d\x00", m.pid), sum/uint64(tick), threads...)
	proc := fmt.Sprintf("/proc/%d", m.pid)
	m.h.write(fmt.Sprintf("%s/task/%d/stat", proc, m.pid), statLine(m.pid, "qemu-system-x86", m.runtime[0]/uint64(tick), m.start))
	m.h.write(proc+"/status", fmt.Sprintf("VmRSS:\t%d kB\nRssAnon:\t%d kB\n", 4*m.pages, 4*m.pages))
	m.h.write(proc+"/io", fmt.Sprintf("rchar: %d\nread_bytes: %d\n", m.read, m.read))
}

// tell is what the programs tell: nanoseconds.
func (m *machine) tell() (threads []Thread) {
	for i, ns := range m.runtime {
		t := Thread{
			PID: m.pid, TID: m.pid + i, Start: (m.start + uint64(i)) * uint64(tick), Delay: ns / 2, Waits: 1, Voluntary: 5, Involuntary: 7,
			Used: Account{Runtime: ns, User: 3 * ns, System: ns},
		}
		copy(t.Name[:], append([]string{"qemu-system-x86"}, m.names...)[i])
		if i == 0 {
			t.Used.MinorFaults, t.Used.ReadChars, t.Used.ReadBytes = m.faults, m.read, m.read
			t.Group = &Group{
				Now: 1 << 60, Threads: uint64(len(m.runtime)), Pages: [4]int64{0, m.pages, 9, 0},
				Ended: Account{Runtime: m.ended, User: 3 * m.ended, System: m.ended},
			}
		}
		threads = append(threads, t)
	}
	return threads
}

func newMachine(h *fakeHost, pid int) *machine {
	return &machine{
		h: h, pid: pid, start: 500, names: []string{"CPU 0/KVM", "IO iothread1", "worker"},
		runtime: []uint64{81e6, 205e6, 43e6, 19e6}, faults: 3, read: 1000, pages: 100,
	}
}

// toldScanner scans a host of which programs tell, too.
func toldScanner(h *fakeHost, now *clock, programs Programs) *scanner {
	s := newScanner(Options{Root: h.root, Now: now.Now, Programs: programs, Groups: map[string]bool{threadDetail: true}})
	h.t.Cleanup(s.close)
	return s
}

// newTold is a scanner of a host with one machine, of which programs tell what is
// so now.
func newTold(t *testing.T) (*machine, *fakePrograms, *scanner) {
	t.Helper()
	h := newHost(t)
	m := newMachine(h, 100)
	m.write()
	programs := &fakePrograms{threads: m.tell()}
	return m, programs, toldScanner(h, newClock(), programs)
}

func TestToldIsFinerThanProc(t *testing.T) {
	_, _, s := newTold(t)
	if vm := scan(t, s)[0]; vm.CPU.Time != ticks(34) || s.qemus[0].heard {
		t.Errorf("what is new is read in /proc: %+v", vm.CPU)
	}
	if s.open == 0 {
		t.Error("no file is kept")
	}
	vm := scan(t, s)[0]
	want := CPU{Time: Some(348e6), User: Some(261e6), System: Some(87e6)}
	if diff := cmp.Diff(want, vm.CPU); diff != "" {
		t.Errorf("CPU time (-want +got):\n%s", diff)
	}
	used := func(ns uint64) Usage {
		return Usage{CPU: Some(ns), System: Some(ns / 4), Delay: Some(ns / 2), Voluntary: Some(5), Involuntary: Some(7)}
	}
	roles := [len(Roles)]Usage{RoleEmulator: used(81e6), RoleVCPU: used(205e6), RoleIOThread: used(43e6)}
	// At the first look it was all that the others' whole ticks left.
	roles[RoleOther] = Usage{CPU: vm.Process.Threads[RoleOther].CPU, System: vm.Process.Threads[RoleOther].System}
	if diff := cmp.Diff(roles, vm.Process.Threads); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	if got := roles[RoleOther].CPU.V; got < 19e6 || got > 19e6+uint64(2*tick) {
		t.Errorf("the worker has %d ns", got)
	}
	if vm.VCPUs[0].Time != Some(205e6) || vm.Process.MinorFaults != Some(100) || vm.Process.IO.ReadBytes != Some(1000) || !vm.Process.IO.WriteCalls.Set {
		t.Errorf("%+v, %+v", vm.VCPUs, vm.Process)
	}
	if s.open > 1 {
		t.Errorf("%d files are kept, want status at most", s.open)
	}
}

// TestProgramsAreAskedWhereTheyCostLess has machines of 4 threads, with 7 files,
// among many threads of others.
func TestProgramsAreAskedWhereTheyCostLess(t *testing.T) {
	h := newHost(t)
	programs := &fakePrograms{}
	const machines = 50
	for i := range machines {
		m := newMachine(h, 100+10*i)
		m.names[2] = "vhost-100" // so that each thread has a role
		m.write()
		programs.threads = append(programs.threads, m.tell()...)
	}
	s := toldScanner(h, newClock(), programs)
	scan(t, s)
	const equal = machines * 7 * passed
	for _, step := range []struct {
		threads int
		heard   bool
	}{{equal + 1, false}, {equal, true}, {2 * equal, true}, {2*equal + 1, false}, {2 * equal, false}, {fewThreads, true}} {
		h.write("/proc/loadavg", fmt.Sprintf("0.20 0.18 0.12 1/%d 11206\n", step.threads))
		scan(t, s)
		if got := s.qemus[0].heard; got != step.heard {
			t.Errorf("%d threads: asked is %v", step.threads, got)
		}
	}
	h.write("/proc/loadavg", "?")
	if scan(t, s); !s.qemus[0].heard {
		t.Error("nobody knows how many threads there are, and they were not asked")
	}
}

// TestWhatIsNotToldIsRead has the programs tell of two processes, of one of
// them not as it is.
func TestWhatIsNotToldIsRead(t *testing.T) {
	for name, change := range map[string]func([]Thread) []Thread{
		"nothing of it":                func([]Thread) []Thread { return []Thread{} },
		"the main thread is missing":   func(all []Thread) []Thread { return all[1:] },
		"a thread is missing":          func(all []Thread) []Thread { return all[:3] },
		"a thread too much":            func(all []Thread) []Thread { return append(all, Thread{PID: 100, TID: 999}) },
		"a thread that is too young":   func(all []Thread) []Thread { all[2].Start = all[0].Group.Now + 1; return all },
		"another process":              func(all []Thread) []Thread { all[0].Start += uint64(tick); return all },
		"it changed meanwhile":         func(all []Thread) []Thread { all[0].Group.Torn = true; return all },
		"a thread on a CPU of its own": func(all []Thread) []Thread { all[1].Behind = true; return all },
		"another number":               func(all []Thread) []Thread { all[0].PID = 77; return all },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			one, other := newMachine(h, 100), newMachine(h, 200)
			one.write()
			other.write()
			programs := &fakePrograms{threads: append(change(one.tell()), other.tell()...)}
			s := toldScanner(h, newClock(), programs)
			for range 3 {
				scan(t, s)
			}
			vms := scan(t, s)
			if len(vms) != 2 || vms[0].CPU.Time != ticks(34) || vms[1].CPU.Time != Some(348e6) {
				t.Fatalf("%+v", vms)
			}
			if vms[0].VCPUs[0].Time != ticks(20) || vms[1].VCPUs[0].Time != Some(205e6) {
				t.Errorf("virtual CPUs %+v and %+v", vms[0].VCPUs, vms[1].VCPUs)
			}
			programs.threads = append(one.tell(), other.tell()...)
			if vms := scan(t, s); vms[0].CPU.Time != Some(348e6) {
				t.Errorf("when it is told as it is: %+v", vms[0].CPU)
			}
			programs.threads = nil // some may be missing, of any
			if vms := scan(t, s); vms[0].CPU.Time != Some(348e6) || s.qemus[0].heard || s.qemus[1].heard {
				t.Errorf("without programs: %+v", vms[0].CPU)
			}
		})
	}
}

func TestAnEndedThreadThatIsNotTold(t *testing.T) {
	m, programs, s := newTold(t)
	scan(t, s)
	before := scan(t, s)[0].Process.Threads
	// The I/O thread and the worker end.
	m.ended, m.runtime = 43e6+19e6, m.runtime[:2]
	m.write()
	programs.threads = m.tell()
	after := scan(t, s)[0]
	if len(after.Process.IOThreads) != 0 || after.Process.Threads != before {
		t.Errorf("from %+v to %+v", before, after.Process.Threads)
	}
	if !s.qemus[0].heard || len(s.qemus[0].threads) != 2 {
		t.Errorf("%d threads are followed", len(s.qemus[0].threads))
	}
}

// TestNoCounterGoesBack changes at random between the two ways.
func TestNoCounterGoesBack(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	h := newHost(t)
	m := newMachine(h, 100)
	m.write()
	programs := &fakePrograms{}
	s := toldScanner(h, newClock(), programs)
	before := map[string]uint64{}
	for round := range 500 {
		for i := range m.runtime {
			if random.IntN(2) == 0 {
				m.runtime[i] += random.Uint64N(30e6)
			}
		}
		m.read += random.Uint64N(100)
		m.write()
		programs.threads = nil
		if random.IntN(2) == 0 {
			programs.threads = m.tell()
			for i := range programs.threads { // the split is another each time
				used := &programs.threads[i].Used
				used.System = random.Uint64N(used.User)
			}
		}
		vm := &scan(t, s)[0]
		now := countersOf(vm)
		for name, n := range before {
			if now[name] < n {
				t.Fatalf("round %d, told is %v: %s went from %d back to %d", round, s.qemus[0].heard, name, n, now[name])
			}
		}
		var sum, truth uint64
		for _, used := range vm.Process.Threads {
			sum += used.CPU.V
		}
		for _, ns := range m.runtime {
			truth += ns
		}
		if s.qemus[0].heard && (vm.CPU.Time.V != truth || vm.VCPUs[0].Time.V != m.runtime[1] || sum > truth+uint64(tick)*uint64(len(m.runtime))) {
			t.Fatalf("round %d: %d ns of %d, by roles %d, virtual CPU %d of %d", round, vm.CPU.Time.V, truth, sum, vm.VCPUs[0].Time.V, m.runtime[1])
		}
		before = now
	}
}

func TestMemoryIsReadWhenItMayHaveChanged(t *testing.T) {
	h, now := newHost(t), newClock()
	m := newMachine(h, 100)
	m.write()
	programs := &fakePrograms{threads: m.tell()}
	s := toldScanner(h, now, programs)
	scan(t, s)
	resident := func() uint64 { return scan(t, s)[0].Process.Resident.V / 4096 }
	if got := resident(); got != 100 {
		t.Fatalf("have %d pages", got)
	}
	h.write("/proc/100/status", "VmRSS:\t44 kB\n")
	now.advance(mostStale - 1)
	if got := resident(); got != 100 {
		t.Errorf("nothing shows that it changed: have %d pages", got)
	}
	now.advance(mostStale / 2)
	if got := resident(); got != 11 {
		t.Errorf("%v later: have %d pages, want what /proc says", mostStale*3/2, got)
	}
	for name, change := range map[string]func(){
		"a page more or less": func() { m.pages-- }, "a fault": func() { m.faults++ },
		"another split": func() { m.pages++; programs.threads[0].Group.Pages[2]++ },
		"a huge page":   func() { programs.threads[0].Group.HugePages += 512 },
	} {
		h.write("/proc/100/status", "VmRSS:\t44 kB\n")
		programs.threads = m.tell()
		scan(t, s)
		change()
		programs.threads[0].Group.Pages[1], programs.threads[0].Used.MinorFaults = m.pages, m.faults
		h.write("/proc/100/status", "VmRSS:\t48 kB\n")
		if got := resident(); got != 12 {
			t.Errorf("%s: have %d pages, want what /proc says", name, got)
		}
	}
	h.write("/proc/100/status", "VmRSS:\tmuch\n")
	m.faults++
	programs.threads = m.tell()
	scan(t, s)
	h.write("/proc/100/status", "VmRSS:\t52 kB\n")
	if got := resident(); got != 13 {
		t.Errorf("what could not be read was kept: have %d pages", got)
	}
}

// TestThreadsThatAreToldOfAreNotListed has a virtual CPU and a worker come, and
// /proc not say so.
func TestThreadsThatAreToldOfAreNotListed(t *testing.T) {
	m, programs, s := newTold(t)
	scan(t, s)
	m.names, m.runtime = append(m.names, "CPU 1/KVM", "worker"), append(m.runtime, 70e6, 5e6)
	programs.threads = m.tell()
	vm := scan(t, s)[0]
	if len(vm.VCPUs) != 2 || vm.VCPUs[1].Time != Some(70e6) || vm.Process.Threads[RoleVCPU].CPU != Some(275e6) || !s.qemus[0].heard {
		t.Errorf("with one more virtual CPU: %+v, %+v", vm.VCPUs, vm.Process.Threads)
	}
	// When nobody tells any more, they are found in /proc.
	m.write()
	programs.threads = nil
	m.names, m.runtime = append(m.names, "CPU 2/KVM"), append(m.runtime, 30e6)
	m.write()
	if vm := scan(t, s)[0]; len(vm.VCPUs) != 3 || vm.VCPUs[2].Time != Some(30e6) || vm.VCPUs[1].Time != Some(70e6) {
		t.Errorf("without programs: %+v", vm.VCPUs)
	}
	programs.threads = m.tell()
	if vm := scan(t, s)[0]; len(vm.VCPUs) != 3 || !s.qemus[0].heard || len(s.qemus[0].threads) != 5 {
		t.Errorf("with programs again: %+v, %d threads are followed", vm.VCPUs, len(s.qemus[0].threads))
	}
}

// TestWhatAProcessHasIsToldOf counts looks at descriptors by what they see: a
// tap that nobody has told of is not found.
func TestWhatAProcessHasIsToldOf(t *testing.T) {
	h, now := newHost(t), newClock()
	m := newMachine(h, 100)
	m.start = 1 // long ago
	m.write()
	h.hold("100", "3", "/dev/net/tun", "iff:\ttap1\n")
	h.write("/proc/100/net/dev", devHeading+"tap1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\ntap2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
	programs := new(fakePrograms)
	files := uint64(7)
	s := toldScanner(h, now, programs)
	taps := func() int {
		t.Helper()
		programs.threads = m.tell()
		programs.threads[0].Group.Files = files
		return len(scan(t, s)[0].Interfaces)
	}
	taps() // in /proc
	now.advance(2 * lasting)
	if n := taps(); n != 1 {
		t.Fatalf("have %d taps", n)
	}
	h.hold("100", "4", "/dev/net/tun", "iff:\ttap2\n")
	for i := range mostQuiet - 3 {
		if now.advance(2 * lasting); taps() != 1 {
			t.Fatalf("look %d: descriptors were listed, and nobody told of one", i)
		}
	}
	now.advance(2 * lasting)
	taps()
	now.advance(2 * lasting)
	if n := taps(); n != 2 {
		t.Errorf("in time: have %d taps", n)
	}

	h.remove("/proc/100/fd/4")
	files++
	if n := taps(); n != 2 {
		t.Errorf("just after a look: have %d taps", n)
	}
	now.advance(rescan)
	if n := taps(); n != 1 {
		t.Errorf("%v after a look, with other files: have %d taps", rescan, n)
	}
	h.hold("100", "5", "/dev/net/tun", "iff:\ttap2\n")
	files = 0 // too many
	now.advance(rescan)
	if n := taps(); n != 1 {
		t.Errorf("nobody can tell, and it is not time to look: have %d taps", n)
	}
	now.advance(2 * lasting)
	if n := taps(); n != 2 {
		t.Errorf("nobody can tell, and it is time to look: have %d taps", n)
	}
}

// TestAVirtualMachineThatStarts opens its tap after the first look at it.
func TestAVirtualMachineThatStarts(t *testing.T) {
	h, now := newHost(t), newClock()
	m := newMachine(h, 100)
	m.start = uint64(now.Now().Sub(time.Unix(1_700_000_000, 0)) / tick) // now
	m.write()
	h.write("/proc/100/net/dev", devHeading+"tap1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n")
	programs := new(fakePrograms)
	s := toldScanner(h, now, programs)
	looks := func(files uint64) int {
		programs.threads = m.tell()
		programs.threads[0].Group.Files = files
		return len(scan(t, s)[0].Interfaces)
	}
	looks(1)
	now.advance(rescan - 1)
	looks(2)
	h.hold("100", "3", "/dev/net/tun", "iff:\t\n")
	now.advance(1)
	if looks(3); s.qemus[0].belongings.descriptors == nil {
		t.Errorf("%v after the first look there was none", rescan)
	}
	h.remove("/proc/100/fdinfo/3")
	h.write("/proc/100/fdinfo/3", "iff:\ttap1\n") // which changes no file
	now.advance(2 * lasting)
	if n := looks(3); n != 1 {
		t.Errorf("at the next look: have %d taps", n)
	}
}

// TestNumbersOfThreadsThatComeAgain has a virtual CPU with the number of one
// that has ended, and more of them than anybody has.
func TestNumbersOfThreadsThatComeAgain(t *testing.T) {
	m, programs, s := newTold(t)
	scan(t, s)
	before := scan(t, s)[0].VCPUs[0].Time.V
	programs.threads = m.tell()
	programs.threads[1].Start += 5e9
	programs.threads[1].Used.Runtime = 60e6
	if cpus := scan(t, s)[0].VCPUs; len(cpus) != 1 || cpus[0].Time.V != before+60e6 {
		t.Errorf("after %d ns, another of 60 ms: %+v", before, cpus)
	}
	programs.threads = m.tell()
	for i := range 2 * mostThreads {
		one := Thread{PID: 100, TID: 1000 + i, Start: 6e9}
		copy(one.Name[:], fmt.Sprintf("CPU %d/KVM", i))
		programs.threads = append(programs.threads, one)
	}
	programs.threads[0].Group.Threads = uint64(len(programs.threads))
	scan(t, s)
	if n := len(s.qemus[0].threads); n > mostThreads || n < mostThreads-5 {
		t.Errorf("%d threads are followed, want as many as may be, %d", n, mostThreads)
	}
}
