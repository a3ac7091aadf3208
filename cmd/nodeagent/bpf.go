package main

import (
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
	processes []bpf.Process
	histogram qemu.Histogram
	complaint string
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
			p.log.Warn("a BPF program does not run; its metrics are missing",
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

// Delays implements qemu.RunQueue.
func (p *programs) Delays(of []qemu.ProcessID, each func(pid int, delays *qemu.Histogram)) {
	loaded := p.loaded.Load()
	p.processes = p.processes[:0]
	for _, id := range of {
		p.processes = append(p.processes, bpf.Process(id))
	}
	p.complain(loaded.Track(p.processes))
	err := loaded.Read(bpf.RunQueueDelay, func(pid int, h *bpf.Histogram) {
		p.histogram = qemu.Histogram{Set: true, Buckets: h.Buckets, Sum: h.Sum}
		each(pid, &p.histogram)
	})
	if err != nil {
		p.complain(err)
	}
}

// complain logs an error once, until there is another or none.
func (p *programs) complain(err error) {
	complaint := ""
	if err != nil {
		complaint = err.Error()
	}
	if complaint != p.complaint && err != nil {
		p.log.Warn("some VMs have no run-queue delay", "error", err)
	}
	p.complaint = complaint
}
