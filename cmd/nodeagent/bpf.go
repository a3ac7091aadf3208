package main

import (
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/virtnode/nodeagent/internal/bpf"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// maxMeasuredVMs is for how many VMs the kernel sets memory aside, 108 KiB for
// each CPU of the host.
const maxMeasuredVMs = 512

// programs are the agent's programs in the kernel. They outlive a reload of the
// configuration, so that what they count goes on.
type programs struct {
	log    *slog.Logger
	loaded atomic.Pointer[bpf.Programs] // never nil
	wanted bool                         // of the config task

	// Of the collection in flight.
	processes     []bpf.Process
	histogram     qemu.Histogram
	thread        qemu.Thread
	group         qemu.Group
	delay, untold complaint
}

func newPrograms(log *slog.Logger) *programs {
	p := &programs{log: log}
	p.loaded.Store(bpf.None())
	return p
}

// want loads the programs, or takes them out of the kernel.
func (p *programs) want(wanted bool) {
	if wanted == p.wanted {
		return
	}
	p.wanted = wanted
	next := bpf.None()
	if wanted {
		next = bpf.Load(maxMeasuredVMs)
		debug.FreeOSMemory() // the types of the kernel took several MiB
	}
	if err := p.loaded.Swap(next).Close(); err != nil {
		p.log.Warn("BPF programs were not closed", "error", err)
	}
	for _, state := range next.States() {
		if state.Err != nil {
			p.log.Warn("a BPF program does not run",
				"program", state.Program, "reason", string(state.Reason), "error", state.Err, "remedy", state.Reason.Remedy())
		}
	}
}

func (p *programs) states() []metrics.ProgramState {
	var states []metrics.ProgramState
	for _, state := range p.loaded.Load().States() {
		states = append(states, metrics.ProgramState{Name: state.Program, Reason: string(state.Reason)})
	}
	return states
}

// Delays implements qemu.Programs.
func (p *programs) Delays(of []qemu.ProcessID, each func(pid int, delays *qemu.Histogram)) {
	loaded := p.loaded.Load()
	err := p.track(loaded, of)
	read := loaded.Read(bpf.RunQueueDelay, func(pid int, h *bpf.Histogram) {
		p.histogram = qemu.Histogram{Set: true, Buckets: h.Buckets, Sum: h.Sum}
		each(pid, &p.histogram)
	})
	p.delay.about(errors.Join(err, read), p.log, "some VMs have no run-queue delay")
}

// Threads implements qemu.Programs.
func (p *programs) Threads(of []qemu.ProcessID, each func(*qemu.Thread)) bool {
	loaded := p.loaded.Load()
	_ = p.track(loaded, of) // Delays says so
	all, err := loaded.Threads(func(t *bpf.Thread) {
		p.thread = qemu.Thread{
			PID: t.PID, TID: t.TID, Start: t.Start, Delay: t.Delay, Waits: t.Waits, Voluntary: t.Voluntary, Involuntary: t.Involuntary,
			Behind: t.Behind, Groups: t.Groups, Name: t.Name, Used: qemu.Account(t.Used),
		}
		if g := t.Group; g != nil {
			p.group = qemu.Group{Now: g.Now, Threads: g.Threads, Torn: g.Torn, Pages: g.Pages, HugePages: g.HugePages, Files: g.Files, Ended: qemu.Account(g.Ended)}
			p.thread.Group = &p.group
		}
		each(&p.thread)
	})
	p.untold.about(err, p.log, "what VMs used is read in /proc")
	return all
}

func (p *programs) track(loaded *bpf.Programs, of []qemu.ProcessID) error {
	p.processes = p.processes[:0]
	for _, id := range of {
		p.processes = append(p.processes, bpf.Process(id))
	}
	return loaded.Track(p.processes)
}

// complaint is an error that is logged once, until there is another or none.
type complaint string

func (c *complaint) about(err error, log *slog.Logger, message string) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	if now != string(*c) && err != nil {
		log.Warn(message, "error", err)
	}
	*c = complaint(now)
}
