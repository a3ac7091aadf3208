package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// cpuFamilies are the CPU time of a whole machine, as libvirt reads it.
var cpuFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_cpu_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine, QEMU included.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.Time) },
	},
	{
		"virtnode_vm_cpu_user_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine in user mode of the host.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.User) },
	},
	{
		"virtnode_vm_cpu_system_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine in the host's kernel.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.System) },
	},
	{
		"virtnode_vm_cpu_haltpoll_success_seconds_total", counter, nanoseconds, "", fromMonitor, "Time KVM polled before a halted virtual CPU was woken.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.HaltPollSuccess) },
	},
	{
		"virtnode_vm_cpu_haltpoll_failure_seconds_total", counter, nanoseconds, "", fromMonitor, "Time KVM polled for a halted virtual CPU in vain.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.HaltPollFailure) },
	},
}

// vcpuFamilies are its virtual CPUs.
var vcpuFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_vcpus", gauge, plain, "", fromMonitor, "Virtual CPUs that are online.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Current) },
	},
	{
		"virtnode_vm_vcpus_maximum", gauge, plain, "", fromMonitor, "Virtual CPUs that the machine may have.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Maximum) },
	},
	{"virtnode_vm_vcpu_state", gauge, plain, "vcpu state", fromMonitor, "The state that a virtual CPU is in. Always 1; other states have no series.", emitVCPUState},
	{
		"virtnode_vm_vcpu_halted", gauge, plain, "vcpu", fromMonitor, "Whether the guest has halted the virtual CPU.",
		vcpus(func(cpu *qemu.VCPU) qemu.Num { return cpu.Halted }),
	},
	{
		"virtnode_vm_vcpu_seconds_total", counter, nanoseconds, "vcpu", fromMonitor, "Time the virtual CPU ran on a physical CPU.",
		vcpus(func(cpu *qemu.VCPU) qemu.Num { return cpu.Time }),
	},
	{
		"virtnode_vm_vcpu_wait_seconds_total", counter, nanoseconds, "vcpu", fromMonitor, "Time the virtual CPU waited for I/O of the host.",
		vcpus(func(cpu *qemu.VCPU) qemu.Num { return cpu.Wait }),
	},
	{
		"virtnode_vm_vcpu_delay_seconds_total", counter, nanoseconds, "vcpu", fromMonitor, "Time the virtual CPU could run but had no physical CPU (steal, as the guest sees it).",
		vcpus(func(cpu *qemu.VCPU) qemu.Num { return cpu.Delay }),
	},
}

// memoryFamilies are the balloon's.
var memoryFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_memory_current_bytes", gauge, plain, "", fromMonitor, "Memory that the balloon leaves to the guest.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Current) },
	},
	{
		"virtnode_vm_memory_maximum_bytes", gauge, plain, "", fromMonitor, "Memory that the guest may have at most.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Maximum) },
	},
	{
		"virtnode_vm_memory_resident_bytes", gauge, plain, "", fromMonitor, "Resident memory of the QEMU process, as libvirt reports it.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Resident) },
	},
	{
		"virtnode_vm_memory_available_bytes", gauge, plain, "", fromMonitor, "Memory that the guest sees as its total (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Available) },
	},
	{
		"virtnode_vm_memory_unused_bytes", gauge, plain, "", fromMonitor, "Memory that the guest leaves wholly unused (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Unused) },
	},
	{
		"virtnode_vm_memory_usable_bytes", gauge, plain, "", fromMonitor, "Memory that the guest could use without swapping (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Usable) },
	},
	{
		"virtnode_vm_memory_disk_caches_bytes", gauge, plain, "", fromMonitor, "Memory that the guest could take back from its disk caches (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.DiskCaches) },
	},
	{
		"virtnode_vm_memory_swap_in_bytes_total", counter, plain, "", fromMonitor, "Memory that the guest read from its swap space since its boot (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.SwapIn) },
	},
	{
		"virtnode_vm_memory_swap_out_bytes_total", counter, plain, "", fromMonitor, "Memory that the guest wrote to its swap space since its boot (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.SwapOut) },
	},
	{
		"virtnode_vm_memory_major_faults_total", counter, plain, "", fromMonitor, "Page faults in the guest that needed I/O (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.MajorFaults) },
	},
	{
		"virtnode_vm_memory_minor_faults_total", counter, plain, "", fromMonitor, "Page faults in the guest that needed no I/O (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.MinorFaults) },
	},
	{
		"virtnode_vm_memory_hugetlb_allocations_total", counter, plain, "", fromMonitor, "Huge pages that the guest allocated (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.HugetlbAllocations) },
	},
	{
		"virtnode_vm_memory_hugetlb_failures_total", counter, plain, "", fromMonitor, "Huge pages that the guest failed to allocate (guest's balloon driver).",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.HugetlbFails) },
	},
	{
		"virtnode_vm_memory_last_update_timestamp_seconds", gauge, plain, "", fromMonitor, "When the guest's balloon driver last told its numbers.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.LastUpdate) },
	},
}

// blockFamilies are its disks.
var blockFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_block_read_requests_total", counter, plain, "device", fromMonitor, "Read requests of the guest.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Read.Requests }),
	},
	{
		"virtnode_vm_block_read_bytes_total", counter, plain, "device", fromMonitor, "Bytes that the guest read.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Read.Bytes }),
	},
	{
		"virtnode_vm_block_read_seconds_total", counter, nanoseconds, "device", fromMonitor, "Time that read requests took, summed over requests.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Read.Time }),
	},
	{
		"virtnode_vm_block_write_requests_total", counter, plain, "device", fromMonitor, "Write requests of the guest.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Write.Requests }),
	},
	{
		"virtnode_vm_block_write_bytes_total", counter, plain, "device", fromMonitor, "Bytes that the guest wrote.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Write.Bytes }),
	},
	{
		"virtnode_vm_block_write_seconds_total", counter, nanoseconds, "device", fromMonitor, "Time that write requests took, summed over requests.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Write.Time }),
	},
	{
		"virtnode_vm_block_flush_requests_total", counter, plain, "device", fromMonitor, "Flush requests of the guest.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Flush.Requests }),
	},
	{
		"virtnode_vm_block_flush_seconds_total", counter, nanoseconds, "device", fromMonitor, "Time that flush requests took, summed over requests.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Flush.Time }),
	},
	{
		"virtnode_vm_block_capacity_bytes", gauge, plain, "device", fromMonitor, "Size of the disk that the guest sees.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Capacity }),
	},
	{
		"virtnode_vm_block_allocation_bytes", gauge, plain, "device", fromMonitor, "Highest offset that was written to in the disk's image.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Allocation }),
	},
	{
		"virtnode_vm_block_physical_bytes", gauge, plain, "device", fromMonitor, "Size of the file or device that holds the disk's image.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Physical }),
	},
}

func vcpus(value func(*qemu.VCPU) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.VCPUs {
			w.putIndex("vcpu", vm.VCPUs[i].Index, value(&vm.VCPUs[i]))
		}
	}
}

func disks(value func(*qemu.Block) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Blocks {
			w.putLabel("device", vm.Blocks[i].Device, value(&vm.Blocks[i]))
		}
	}
}

func emitVCPUState(w *writer, vm *qemu.VM) {
	for i := range vm.VCPUs {
		w.putIndexState("vcpu", vm.VCPUs[i].Index, "state", string(vm.VCPUs[i].State))
	}
}
