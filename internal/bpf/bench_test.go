package bpf

import (
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// BenchmarkScrape reads 200 VMs.
func BenchmarkScrape(b *testing.B) {
	const vms = 200
	p := loadAll(b, 512)
	table := p.running[RunQueueDelay].table
	processes := make([]Process, vms)
	for i := range processes {
		processes[i].PID = 1<<22 + i // more than there can be
	}
	track(b, p, processes...)
	for slot := range vms {
		table.sum = Histogram{Sum: 1, Buckets: [Buckets]uint64{1}}
		if _, err := table.memory.WriteAt(table.sum.append(nil), table.offset(0, slot)); err != nil {
			b.Fatal(err)
		}
	}
	found := 0
	each := func(int, *Histogram) { found++ }
	rounds := 0
	b.ReportAllocs()
	for b.Loop() {
		rounds++
		if err := p.Track(processes); err != nil {
			b.Fatal(err)
		}
		if err := p.Read(RunQueueDelay, each); err != nil {
			b.Fatal(err)
		}
	}
	if found != rounds*vms {
		b.Errorf("%d histograms in %d rounds", found, rounds)
	}
}

// BenchmarkSwitch passes a byte to and fro between two threads on one CPU. The
// kernel itself takes the time of the program, itself included: what counts is
// the difference to one that does nothing.
func BenchmarkSwitch(b *testing.B) {
	hosttest.Need(b, hosttest.BPF, missing())
	nothing := changed("nothing", func(p *ebpf.ProgramSpec) {
		p.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("sched_switch"), asm.Return()}
	})
	ours := object{RunQueueDelay, loadRunQueueDelay}
	for _, c := range []struct {
		name, thread string
		objects      []object
		tracked      bool
	}{
		{"without", "thread", nil, false},
		{"nothing", "thread", []object{nothing}, false},
		{"thread of no VM", "thread", []object{ours}, false},
		{"name of a vCPU", "CPU 0/KVM", []object{ours}, false},
		{"vCPU", "CPU 0/KVM", []object{ours}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := load(1, c.objects)
			defer func() { _ = p.Close() }()
			for _, state := range p.States() {
				if state.Err != nil {
					b.Fatal(state.Err)
				}
			}
			if c.tracked {
				track(b, p, Process{PID: os.Getpid()})
			}
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			if err != nil {
				b.Fatal(err)
			}
			pingPong(b, c.thread)
			for _, program := range p.running {
				for _, loaded := range program.collection.Programs {
					cost, err := loaded.Stats()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(cost.Runtime.Nanoseconds())/float64(max(cost.RunCount, 1)), "ns/run")
				}
			}
			if err := stats.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}

// pingPong makes two switches in each iteration.
func pingPong(b *testing.B, name string) {
	b.Helper()
	var pipes [2][2]int
	for i := range pipes {
		if err := unix.Pipe(pipes[i][:]); err != nil {
			b.Fatal(err)
		}
	}
	done := make(chan error, 2)
	play := func(first bool, from, to int) {
		runtime.LockOSThread() // for good: the thread ends with its name
		err := settle(name)
		ball := make([]byte, 1)
		for range b.N {
			if first && err == nil {
				_, err = unix.Write(to, ball)
			}
			if err == nil {
				_, err = unix.Read(from, ball)
			}
			if !first && err == nil {
				_, err = unix.Write(to, ball)
			}
		}
		done <- err
	}
	go play(true, pipes[0][0], pipes[1][1])
	go play(false, pipes[1][0], pipes[0][1])
	for range 2 {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
	for _, pipe := range pipes {
		_ = unix.Close(pipe[0])
		_ = unix.Close(pipe[1])
	}
}

// BenchmarkThreads walks over all threads of the host, of which none is a VM's.
func BenchmarkThreads(b *testing.B) {
	p := loadAll(b, 1)
	track(b, p, Process{PID: 1 << 22}) // more than there can be
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if all, err := p.Threads(func(*Thread) { b.Error("a thread of no VM") }); err != nil || !all {
			b.Fatal(all, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(info.Procs), "ns/thread")
}
