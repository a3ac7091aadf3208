package qemu

import (
	"cmp"
	"slices"
)

// join gives a machine that a daemon knows what the kernel tells of it. Where
// both count the same, the kernel's number wins: it is fresh even when the
// daemon's is late, and a counter must not go back. libvirt reads those
// numbers in the same files, so that nothing jumps. The machine's slices are
// changed in place; memory, if there is some, is where its process is copied to.
func (vm *VM) join(process *VM, memory *Process) {
	if memory == nil {
		memory = new(Process)
	}
	memory.fill(process.Process)
	vm.Process = memory
	if process.CPU.Time.Set {
		vm.CPU.Time, vm.CPU.User, vm.CPU.System = process.CPU.Time, process.CPU.User, process.CPU.System
	}
	if process.Memory.Resident.Set {
		vm.Memory.Resident = process.Memory.Resident
	}
	for _, cpu := range process.VCPUs {
		at, found := slices.BinarySearchFunc(vm.VCPUs, cpu.Index, func(a VCPU, index uint32) int { return cmp.Compare(a.Index, index) })
		if !found {
			vm.VCPUs = slices.Insert(vm.VCPUs, at, cpu)
			continue
		}
		vm.VCPUs[at].Time = cpu.Time
		if cpu.Delay.Set {
			vm.VCPUs[at].Delay = cpu.Delay
		}
	}
	for _, nic := range process.Interfaces {
		at := slices.IndexFunc(vm.Interfaces, func(known Interface) bool { return known.Name == nic.Name })
		if at < 0 {
			vm.Interfaces = append(vm.Interfaces, nic)
			continue
		}
		vm.Interfaces[at].Receive, vm.Interfaces[at].Transmit = nic.Receive, nic.Transmit
	}
}

// uncount drops what the kernel counts of a machine but could not tell now. What
// libvirt told may be as old as it likes, since it is asked for other things.
func (vm *VM) uncount() {
	vm.CPU.Time, vm.CPU.User, vm.CPU.System = Num{}, Num{}, Num{}
	for i := range vm.VCPUs {
		vm.VCPUs[i].Time, vm.VCPUs[i].Delay = Num{}, Num{}
	}
}

// fill makes a process like another that shares no memory with it.
func (p *Process) fill(from *Process) {
	vcpus, iothreads, vfs := p.VCPUs, p.IOThreads, p.VFs
	*p = *from
	p.VCPUs, p.IOThreads, p.VFs = refill(vcpus, from.VCPUs), refill(iothreads, from.IOThreads), refill(vfs, from.VFs)
}
