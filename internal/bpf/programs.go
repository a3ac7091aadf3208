package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
)

// The programs.
const (
	// RunQueueDelay measures how long virtual CPUs wait for a physical one. A
	// wait is seen when the virtual CPU has run and leaves it again.
	RunQueueDelay = "run_queue_delay"
	// VMThreads tells what the threads of VMs have used.
	VMThreads = "vm_threads"
)

// object is a program by name, and what to load of it.
type object struct {
	name string
	load func() (*ebpf.CollectionSpec, error)
}

func objects() []object {
	return []object{{RunQueueDelay, loadRunQueueDelay}, {VMThreads, loadVmThreads}}
}

// State is how a program is.
type State struct {
	Program string
	Reason  Reason
	Err     error // what the kernel said; nil when it runs
}

// Programs are those programs that run, and why the others do not. Methods may
// be called from several goroutines.
type Programs struct {
	states []State

	mu      sync.Mutex
	kernel  *kernel // nil when no program runs
	running map[string]*program
	slots   *slots
}

// Load loads what the kernel takes, with room for a number of VMs.
func Load(room int) *Programs { return load(room, objects()) }

// None are the programs of somebody who wants none.
func None() *Programs {
	p := new(Programs)
	for _, object := range objects() {
		p.states = append(p.states, State{Program: object.name, Reason: Disabled})
	}
	return p
}

func load(room int, objects []object) *Programs {
	p := &Programs{running: make(map[string]*program), slots: newSlots(room)}
	kernel, closed := openKernel(room)
	for _, object := range objects {
		err := closed
		if err == nil {
			p.running[object.name], err = kernel.load(object)
		}
		if err != nil {
			delete(p.running, object.name)
			err = fmt.Errorf("load BPF program %s: %w", object.name, err)
		}
		p.states = append(p.states, State{Program: object.name, Reason: reasonOf(err), Err: err})
	}
	if len(p.running) > 0 {
		p.kernel = kernel
		p.kernel.types = nil // several MiB, and of no more use
	} else if kernel != nil {
		_ = kernel.vms.Close()
	}
	return p
}

// States lists every program.
func (p *Programs) States() []State { return p.states }

// Track says which processes are VMs from now on. A new one starts from zero.
// The error says how many have no place; the others are tracked all the same.
func (p *Programs) Track(wanted []Process) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kernel == nil {
		return nil
	}
	var errs []error
	fresh, gone := p.slots.divide(wanted)
	for _, pid := range gone {
		if err := p.forget(pid); err != nil {
			errs = append(errs, fmt.Errorf("forget process %d: %w", pid, err))
		}
	}
	left := 0
	for _, process := range fresh {
		slot, ok := p.slots.take(process)
		if !ok {
			left++
		} else if err := p.enter(process, slot); err != nil {
			errs = append(errs, fmt.Errorf("track process %d: %w", process.PID, err))
		}
	}
	if left > 0 {
		errs = append(errs, fmt.Errorf("there is room for %d processes, and none for %d more", p.kernel.vms.MaxEntries(), left))
	}
	return errors.Join(errs...)
}

func (p *Programs) forget(pid int) error {
	if err := p.kernel.vms.Delete(uint32(pid)); err != nil {
		return err // the kernel still writes to the slot
	}
	p.slots.give(pid)
	return nil
}

func (p *Programs) enter(process Process, slot int) error {
	var errs []error
	for _, program := range p.running {
		if program.table != nil {
			errs = append(errs, program.table.clear(slot))
		}
	}
	errs = append(errs, p.kernel.vms.Put(uint32(process.PID), uint32(slot)))
	err := errors.Join(errs...)
	if err != nil {
		p.slots.give(process.PID)
	}
	return err
}

// Read calls each for every process that the program has measured something
// of. The histogram is the callee's for the length of the call.
func (p *Programs) Read(name string, each func(pid int, h *Histogram)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	program := p.running[name]
	if program == nil || program.table == nil {
		return nil
	}
	for pid, at := range p.slots.of {
		if err := program.table.read(at.slot); err != nil {
			return fmt.Errorf("read BPF program %s: %w", name, err)
		}
		if program.table.sum.Count() > 0 {
			each(pid, &program.table.sum)
		}
	}
	return nil
}

// Threads calls each for every thread of the tracked processes. It returns
// whether all are told: false when [VMThreads] does not run. The thread is the
// callee's for the length of the call.
func (p *Programs) Threads(each func(*Thread)) (all bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	program := p.running[VMThreads]
	if program == nil {
		return false, nil
	}
	if err := program.walk.read(each); err != nil {
		return false, fmt.Errorf("read BPF program %s: %w", VMThreads, err)
	}
	return true, nil
}

// Close takes the programs out of the kernel.
func (p *Programs) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kernel == nil {
		return nil
	}
	errs := []error{p.kernel.vms.Close()}
	for _, program := range p.running {
		errs = append(errs, program.close())
	}
	p.kernel, p.running = nil, nil
	return errors.Join(errs...)
}
