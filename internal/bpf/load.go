package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Reason says in one word why a program does not run.
type Reason string

// The reasons.
const (
	Loaded           Reason = "Loaded"   // it runs
	Disabled         Reason = "Disabled" // nobody wants it
	BTFMissing       Reason = "BTFMissing"
	HookMissing      Reason = "HookMissing"
	PermissionDenied Reason = "PermissionDenied"
	Unsupported      Reason = "Unsupported"
	LoadFailed       Reason = "LoadFailed"
)

// Remedy says what a person can do.
func (r Reason) Remedy() string {
	switch r {
	case Disabled:
		return "set telemetry.bpf in the configuration"
	case BTFMissing:
		return "use a kernel with CONFIG_DEBUG_INFO_BTF, and let the agent see /sys/kernel/btf/vmlinux"
	case HookMissing:
		return "use a kernel with CONFIG_BPF_EVENTS and this tracepoint or iterator"
	case PermissionDenied:
		return "give the agent CAP_BPF and CAP_PERFMON (before Linux 5.11 an unlimited RLIMIT_MEMLOCK too); seccomp and /sys/kernel/security/lockdown may forbid it as well"
	case Unsupported:
		return "use Linux 5.11 or later with CONFIG_SCHED_INFO and CONFIG_TASK_IO_ACCOUNTING, as distributions have it"
	case LoadFailed:
		return "read the error; the agent tries again when it is started again"
	}
	return ""
}

var (
	errNoBTF  = errors.New("the kernel does not tell its types")
	errNoHook = errors.New("the kernel has no such hook")
)

func reasonOf(err error) Reason {
	var refused *ebpf.VerifierError
	switch {
	case err == nil:
		return Loaded
	case errors.Is(err, errNoBTF):
		return BTFMissing
	case errors.Is(err, errNoHook):
		return HookMissing
	case errors.Is(err, unix.EPERM):
		return PermissionDenied
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.ENOSYS), errors.As(err, &refused):
		return Unsupported
	}
	return LoadFailed
}

// kernel is what programs are loaded into, and what they share.
type kernel struct {
	types *btf.Cache // megabytes
	cpus  int
	vms   *ebpf.Map // slots by tgid
}

// openKernel makes ready for programs with a number of slots.
func openKernel(slots int) (*kernel, error) {
	types := btf.NewCache()
	if _, err := types.Kernel(); errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("read /sys/kernel/btf/vmlinux: %w", unix.EPERM)
	} else if err != nil {
		return nil, fmt.Errorf("read /sys/kernel/btf/vmlinux: %w: %w", errNoBTF, err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	vms, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "vms", Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: uint32(slots),
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of VMs: %w", err)
	}
	return &kernel{types: types, cpus: cpus, vms: vms}, nil
}

// program is one that runs: it fills the map of histograms that has its name,
// or tells of threads when it is asked.
type program struct {
	collection *ebpf.Collection
	links      []link.Link
	table      *table // nil: it has none
	walk       *walk  // nil: it has nothing to tell
}

// load puts an object into the kernel and attaches it.
func (k *kernel) load(o object) (*program, error) {
	spec, err := o.load()
	if err != nil {
		return nil, err
	}
	for _, p := range spec.Programs {
		if err := k.findHook(p); err != nil {
			return nil, err
		}
	}
	slots := k.vms.MaxEntries()
	spec.Maps["vms"].MaxEntries = slots
	histograms := spec.Maps[o.name]
	if histograms != nil {
		histograms.MaxEntries = slots * uint32(k.cpus)
	}
	if err := spec.Variables["slots"].Set(slots); err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"vms": k.vms},
		Cache:           k.types,
	})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	running := &program{collection: collection}
	if histograms != nil {
		memory, err := collection.Maps[o.name].Memory()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("map the histograms: %w", err), running.close())
		}
		running.table = &table{memory: memory, cpus: k.cpus, slots: int(slots)}
	}
	for name, p := range spec.Programs {
		if err := running.attach(p, collection.Programs[name]); err != nil {
			return nil, errors.Join(fmt.Errorf("attach to %s: %w", p.AttachTo, err), running.close())
		}
	}
	return running, nil
}

// attach lets a loaded program run where it belongs.
func (p *program) attach(spec *ebpf.ProgramSpec, loaded *ebpf.Program) error {
	if spec.AttachType == ebpf.AttachTraceIter {
		iterator, err := link.AttachIter(link.IterOptions{Program: loaded})
		if err != nil {
			return err
		}
		p.links, p.walk = append(p.links, iterator), newWalk(iterator.Open)
		return nil
	}
	attached, err := link.AttachTracing(link.TracingOptions{Program: loaded})
	if err != nil {
		return err
	}
	p.links = append(p.links, attached)
	return nil
}

// findHook looks for a tracepoint or an iterator as the kernel's types name it.
func (k *kernel) findHook(p *ebpf.ProgramSpec) error {
	types, err := k.types.Kernel()
	if err != nil {
		return err
	}
	if p.AttachType == ebpf.AttachTraceIter {
		var hook *btf.Func
		err = types.TypeByName("bpf_iter_"+p.AttachTo, &hook)
	} else {
		var hook *btf.Typedef
		err = types.TypeByName("btf_trace_"+p.AttachTo, &hook)
	}
	if err != nil {
		return fmt.Errorf("find hook %s: %w: %w", p.AttachTo, errNoHook, err)
	}
	return nil
}

func (p *program) close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.collection.Close()
	return errors.Join(errs...)
}
