package bpf

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// missing says what keeps BPF programs from being loaded here.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("BPF programs need root")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return errors.New("the kernel has no BTF")
	}
	return nil
}

func loadAll(t testing.TB, room int) *Programs {
	t.Helper()
	hosttest.Need(t, hosttest.BPF, missing())
	p := Load(room)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, state := range p.States() {
		if state.Reason != Loaded {
			t.Fatalf("%s: %s: %v", state.Program, state.Reason, state.Err)
		}
	}
	return p
}

func track(t testing.TB, p *Programs, processes ...Process) {
	t.Helper()
	if err := p.Track(processes); err != nil {
		t.Fatal(err)
	}
}

// delays reads the run-queue delays of a process; all zero when there are none.
func delays(t testing.TB, p *Programs, pid int) (h Histogram) {
	t.Helper()
	err := p.Read(RunQueueDelay, func(of int, found *Histogram) {
		if of == pid {
			h = *found
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func waits(t testing.TB, p *Programs, pid int) uint64 {
	t.Helper()
	h := delays(t, p, pid)
	return h.Count()
}

// settled waits until the program has seen every wait that the kernel has
// counted for the threads of a process, which must be asleep, and returns
// their sum.
func settled(t testing.TB, p *Programs, pid int) account {
	t.Helper()
	threads := p.running[RunQueueDelay].collection.Maps["threads"]
	var sum account
	eventually(t, "the last waits", func() bool {
		sum = account{}
		for tid, now := range schedstats(t, pid) {
			var seen account
			if err := threads.Lookup(tid, &seen); err != nil || seen != now {
				return false
			}
			sum.Waits += now.Waits
			sum.Delay += now.Delay
		}
		return sum.Waits > 0
	})
	return sum
}

// wantDelays compares what a process gained with what the kernel itself counted.
func wantDelays(t *testing.T, before, after Histogram, kernelBefore, kernelAfter account) {
	t.Helper()
	waits, delay := kernelAfter.Waits-kernelBefore.Waits, kernelAfter.Delay-kernelBefore.Delay
	if got := after.Count() - before.Count(); got != waits {
		t.Errorf("the histogram counts %d waits, the kernel %d", got, waits)
	}
	if got := after.Sum - before.Sum; got != delay {
		t.Errorf("the histogram has %d ns, the kernel %d ns", got, delay)
	}
	least, most := 0.0, 0.0
	for k := range after.Buckets {
		n := float64(after.Buckets[k] - before.Buckets[k])
		most += n * upper(k)
		if k > 0 {
			least += n * upper(k-1)
		}
	}
	if seconds := float64(delay) / 1e9; seconds < least*0.9999 || seconds > most*1.0001 {
		t.Errorf("the kernel counts %g s, but the buckets say between %g s and %g s", seconds, least, most)
	}
	if waits < 100 || delay < uint64(100*time.Millisecond) {
		t.Errorf("%d waits in %d ns prove little", waits, delay)
	}
}

// busy lets the process run until its virtual CPUs have waited often and long.
func busy(t testing.TB, p *Programs, pid int) {
	t.Helper()
	from := delays(t, p, pid)
	eventually(t, "waits", func() bool {
		now := delays(t, p, pid)
		return now.Count() > from.Count()+100 && now.Sum > from.Sum+uint64(150*time.Millisecond)
	})
}

func TestDelayIsWhatTheKernelCounts(t *testing.T) {
	p := loadAll(t, 4)
	vm, other := startChild(t, "vm", nil), startChild(t, "vm", nil)
	vm.line(t)
	other.line(t)
	track(t, p, vm.process(), other.process())
	pids := []int{vm.Process.Pid, other.Process.Pid}
	for _, c := range []*child{vm, other} {
		c.tell(t, "run") // so that each thread is known from now on
		c.tell(t, "park")
	}
	var kernel [2]account
	var before [2]Histogram
	for i, pid := range pids {
		kernel[i] = settled(t, p, pid)
		before[i] = delays(t, p, pid)
	}
	vm.tell(t, "run")
	other.tell(t, "run")
	for _, pid := range pids {
		busy(t, p, pid)
	}
	vm.tell(t, "park")
	other.tell(t, "park")
	for i, pid := range pids {
		now := settled(t, p, pid)
		after := delays(t, p, pid)
		wantDelays(t, before[i], after, kernel[i], now)
		t.Logf("process %d: %d waits, %v", pid, after.Count()-before[i].Count(), time.Duration(after.Sum-before[i].Sum))
	}
}

func TestPlaceIsEmptyForTheNext(t *testing.T) {
	p := loadAll(t, 1)
	vm := startChild(t, "vm", nil)
	vm.line(t)
	first := vm.process()
	track(t, p, first)
	vm.tell(t, "run")
	busy(t, p, first.PID)

	second := startChild(t, "vm", nil)
	second.line(t)
	const full = "there is room for 1 processes, and none for 2 more"
	if err := p.Track([]Process{first, second.process(), {PID: 1}}); err == nil || err.Error() != full {
		t.Errorf("three processes where there is one place: %v, want %q", err, full)
	}
	if waits(t, p, first.PID) < 100 {
		t.Error("the process that had a place has lost it")
	}
	track(t, p, second.process())
	if n := waits(t, p, second.Process.Pid); n != 0 {
		t.Errorf("the next process, which sleeps, begins with %d waits", n)
	}
	if n := waits(t, p, first.PID); n != 0 {
		t.Errorf("the process without a place has %d waits", n)
	}
	vm.tell(t, "park")

	again := Process{PID: second.Process.Pid, Start: second.process().Start.Add(time.Second)}
	second.tell(t, "run")
	busy(t, p, again.PID)
	second.tell(t, "park")
	settled(t, p, again.PID)
	track(t, p, again)
	if n := waits(t, p, again.PID); n != 0 {
		t.Errorf("another process with the same number begins with %d waits", n)
	}
}

// TestThreadsAreForgotten shows that threads leave no entry behind.
func TestThreadsAreForgotten(t *testing.T) {
	p := loadAll(t, 1)
	threads := p.running[RunQueueDelay].collection.Maps["threads"]
	entries := func() (count int) {
		var tid uint32
		var seen account
		for all := threads.Iterate(); all.Next(&tid, &seen); {
			count++
		}
		return count
	}
	vm := startChild(t, "vm", nil)
	vm.line(t)
	track(t, p, vm.process())
	vm.tell(t, "run")
	eventually(t, "both virtual CPUs", func() bool { return entries() == 2 })
	if err := vm.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = vm.Wait()
	eventually(t, "no thread", func() bool { return entries() == 0 })
}

func TestScrapeAllocatesNothing(t *testing.T) {
	p := loadAll(t, 8)
	vm := startChild(t, "vm", nil)
	vm.line(t)
	processes := []Process{vm.process(), {PID: os.Getpid()}, {PID: 1}}
	track(t, p, processes...)
	vm.tell(t, "run")
	busy(t, p, vm.Process.Pid)
	count := 0
	each := func(int, *Histogram) { count++ }
	allocations := testing.AllocsPerRun(100, func() {
		if p.Track(processes) != nil || p.Read(RunQueueDelay, each) != nil {
			count = 0
		}
	})
	if allocations != 0 || count != 101 {
		t.Errorf("%g allocations, %d histograms in 101 scrapes of one busy VM", allocations, count)
	}
}

func TestClosedProgramsMeasureNothing(t *testing.T) {
	p := loadAll(t, 1)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	track(t, p, Process{PID: 1})
	if err := p.Read(RunQueueDelay, func(int, *Histogram) { t.Error("a closed program measures") }); err != nil {
		t.Error(err)
	}
	if all, err := p.Threads(func(*Thread) { t.Error("a closed program tells") }); all || err != nil {
		t.Errorf("a closed program tells all: %v, %v", all, err)
	}
}
