package qemu

import "slices"

// slab is the memory of one reading of the kernel class: all its machines in
// few pieces.
type slab struct {
	vms       []VM
	processes []Process
	vcpus     []VCPU
	cpus      []VCPUThread
	named     []NamedThread
	nics      []Interface
	vfs       []VF
}

// empty returns the slab's memory with room for n machines.
func (s slab) empty(n int) slab {
	return slab{
		vms: slices.Grow(s.vms[:0], n), processes: slices.Grow(s.processes[:0], n),
		vcpus: s.vcpus[:0], cpus: s.cpus[:0], named: s.named[:0], nics: s.nics[:0], vfs: s.vfs[:0],
	}
}

// add adds a machine and its process. There is room for as many as empty was
// told, so that neither moves.
func (s *slab) add() (*VM, *Process) {
	s.vms = append(s.vms, VM{})
	s.processes = append(s.processes, Process{})
	return &s.vms[len(s.vms)-1], &s.processes[len(s.processes)-1]
}

// addParts adds the virtual CPUs and I/O threads that have a thread.
func (s *slab) addParts(vm *VM, parts []*part) {
	vcpus, cpus, named := len(s.vcpus), len(s.cpus), len(s.named)
	for _, p := range parts {
		switch {
		case p.alive == 0:
		case p.role == RoleVCPU:
			s.vcpus = append(s.vcpus, VCPU{Index: p.index, Time: p.used.CPU, Delay: p.used.Delay})
			s.cpus = append(s.cpus, VCPUThread{Index: p.index, Usage: p.used})
		default:
			s.named = append(s.named, NamedThread{Name: p.name, Usage: p.used})
		}
	}
	vm.VCPUs = slices.Clip(s.vcpus[vcpus:])
	vm.Process.VCPUs = slices.Clip(s.cpus[cpus:])
	vm.Process.IOThreads = slices.Clip(s.named[named:])
}

func (s *slab) addInterfaces(vm *VM, e *emulator, scanner *scanner) {
	first := len(s.nics)
	s.nics = scanner.readTaps(e, s.nics)
	vm.Interfaces = slices.Clip(s.nics[first:])
}

func (s *slab) addVFs(vm *VM, vfs []VF) {
	first := len(s.vfs)
	s.vfs = append(s.vfs, vfs...)
	vm.Process.VFs = slices.Clip(s.vfs[first:])
}
