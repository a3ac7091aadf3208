package metrics

import (
	"strconv"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// threadFamilies are the threads of a machine's QEMU process, by role.
var threadFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_thread_cpu_seconds_total", counter, nanoseconds, "role", fromKernel, "CPU time of the QEMU process by what its threads do; other are workers, ended threads too, and all without a name. The sum is the process's.",
		roles(func(used *qemu.Usage) qemu.Num { return used.CPU }),
	},
	{
		"virtnode_vm_thread_delay_seconds_total", counter, nanoseconds, "role", fromKernel, "Time that threads could run but had no physical CPU, by what they do (run-queue delay).",
		roles(func(used *qemu.Usage) qemu.Num { return used.Delay }),
	},
}

// threadDetailFamilies say more about the threads.
var threadDetailFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_thread_cpu_user_seconds_total", counter, nanoseconds, "role", fromKernel, "CPU time of threads in user mode of the host, by what they do; what a virtual CPU runs in the guest is part of it.",
		roles((*qemu.Usage).User),
	},
	{
		"virtnode_vm_thread_cpu_system_seconds_total", counter, nanoseconds, "role", fromKernel, "CPU time of threads in the host's kernel, by what they do.",
		roles(func(used *qemu.Usage) qemu.Num { return used.System }),
	},
	{
		"virtnode_vm_thread_voluntary_context_switches_total", counter, plain, "role", fromKernel, "How often threads gave up the CPU to wait, by what they do.",
		roles(func(used *qemu.Usage) qemu.Num { return used.Voluntary }),
	},
	{
		"virtnode_vm_thread_involuntary_context_switches_total", counter, plain, "role", fromKernel, "How often another thread took the CPU, by what the threads do.",
		roles(func(used *qemu.Usage) qemu.Num { return used.Involuntary }),
	},
	{
		"virtnode_vm_vcpu_user_seconds_total", counter, nanoseconds, "vcpu", fromKernel, "CPU time of the virtual CPU in user mode of the host, the guest's included.",
		cpuThreads((*qemu.Usage).User),
	},
	{
		"virtnode_vm_vcpu_system_seconds_total", counter, nanoseconds, "vcpu", fromKernel, "CPU time of the virtual CPU in the host's kernel.",
		cpuThreads(func(used *qemu.Usage) qemu.Num { return used.System }),
	},
	{
		"virtnode_vm_vcpu_voluntary_context_switches_total", counter, plain, "vcpu", fromKernel, "How often the virtual CPU gave up its physical CPU to wait.",
		cpuThreads(func(used *qemu.Usage) qemu.Num { return used.Voluntary }),
	},
	{
		"virtnode_vm_vcpu_involuntary_context_switches_total", counter, plain, "vcpu", fromKernel, "How often another thread took the virtual CPU's physical CPU.",
		cpuThreads(func(used *qemu.Usage) qemu.Num { return used.Involuntary }),
	},
	{
		"virtnode_vm_iothread_cpu_seconds_total", counter, nanoseconds, "iothread", fromKernel, "CPU time of an I/O thread; the kernel cuts its name at 12 bytes.",
		ioThreads(func(used *qemu.Usage) qemu.Num { return used.CPU }),
	},
	{
		"virtnode_vm_iothread_delay_seconds_total", counter, nanoseconds, "iothread", fromKernel, "Time that an I/O thread could run but had no physical CPU.",
		ioThreads(func(used *qemu.Usage) qemu.Num { return used.Delay }),
	},
}

// schedFamilies are what a program in the kernel measures of a machine's threads.
var schedFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_vcpu_run_queue_delay_seconds", histogram, nanoseconds, "", fromBPF, "How long virtual CPUs waited for a physical one, each time they waited. A wait counts when the virtual CPU has run and leaves the physical one again.",
		func(w *writer, vm *qemu.VM) {
			if vm.Process != nil {
				w.putHistogram(&vm.Process.RunQueueDelay)
			}
		},
	},
}

// processFamilies are a machine's QEMU process.
var processFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_process_start_time_seconds", gauge, nanoseconds, "", fromKernel, "When the QEMU process started; counters begin anew then.",
		process(func(p *qemu.Process) qemu.Num { return unixTime(p.Start) }),
	},
	{
		"virtnode_vm_process_resident_memory_bytes", gauge, plain, "", fromKernel, "Resident memory of the QEMU process, as the kernel reports it: anonymous, file and shared. Huge pages are not part of it.",
		process(func(p *qemu.Process) qemu.Num { return p.Resident }),
	},
	{
		"virtnode_vm_process_memory_bytes", gauge, plain, "kind", fromKernel, "Memory of the QEMU process by kind: anonymous (where the guest's RAM is, unless it is shared or in huge pages), file, shared, huge (pages of hugetlbfs), swap (anonymous memory that was swapped out).",
		emitProcessMemory,
	},
	{
		"virtnode_vm_process_overhead_bytes", gauge, plain, "", fromKernel, "Memory that QEMU has allocated besides the guest's RAM. Known only when that is shared or in huge pages.",
		process(func(p *qemu.Process) qemu.Num { return p.Memory.Overhead }),
	},
	{
		"virtnode_vm_process_minor_faults_total", counter, plain, "", fromKernel, "Page faults of the QEMU process that needed no I/O; those of the guest that KVM handles are not among them.",
		process(func(p *qemu.Process) qemu.Num { return p.MinorFaults }),
	},
	{
		"virtnode_vm_process_major_faults_total", counter, plain, "", fromKernel, "Page faults of the QEMU process that needed I/O of the host.",
		process(func(p *qemu.Process) qemu.Num { return p.MajorFaults }),
	},
	{
		"virtnode_vm_process_read_bytes_total", counter, plain, "", fromKernel, "Bytes that the QEMU process made the host read from storage.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.ReadBytes }),
	},
	{
		"virtnode_vm_process_write_bytes_total", counter, plain, "", fromKernel, "Bytes that the QEMU process made the host write to storage, or mark to be written.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.WriteBytes }),
	},
}

// processDetailFamilies say more about its I/O.
var processDetailFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_process_read_chars_total", counter, plain, "", fromKernel, "Bytes that the QEMU process read by system calls, from the page cache, sockets and pipes too.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.ReadChars }),
	},
	{
		"virtnode_vm_process_write_chars_total", counter, plain, "", fromKernel, "Bytes that the QEMU process wrote by system calls, to the page cache, sockets and pipes too.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.WriteChars }),
	},
	{
		"virtnode_vm_process_read_calls_total", counter, plain, "", fromKernel, "System calls of the QEMU process that read.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.ReadCalls }),
	},
	{
		"virtnode_vm_process_write_calls_total", counter, plain, "", fromKernel, "System calls of the QEMU process that wrote.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.WriteCalls }),
	},
	{
		"virtnode_vm_process_cancelled_write_bytes_total", counter, plain, "", fromKernel, "Bytes counted as written that never reached storage, because the file was cut or removed first.",
		process(func(p *qemu.Process) qemu.Num { return p.IO.CancelledWrites }),
	},
}

// vfFamilies are the virtual functions that a machine holds.
var vfFamilies = [...]family[qemu.VM]{
	{"virtnode_vm_vf_info", gauge, plain, "address pf vf", fromKernel, "A virtual function that the machine holds, by its PCI address: the network device that it is a part of, and its number there. Always 1.", emitVFInfo},
	{
		"virtnode_vm_vf_receive_bytes_total", counter, plain, "address", fromKernel, "Bytes that the virtual function received.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Receive.Bytes }),
	},
	{
		"virtnode_vm_vf_receive_packets_total", counter, plain, "address", fromKernel, "Packets that the virtual function received.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Receive.Packets }),
	},
	{
		"virtnode_vm_vf_receive_drops_total", counter, plain, "address", fromKernel, "Packets for the virtual function that were dropped.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Receive.Drops }),
	},
	{
		"virtnode_vm_vf_receive_broadcast_packets_total", counter, plain, "address", fromKernel, "Packets to all that the virtual function received.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Broadcast }),
	},
	{
		"virtnode_vm_vf_receive_multicast_packets_total", counter, plain, "address", fromKernel, "Packets to a group that the virtual function received.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Multicast }),
	},
	{
		"virtnode_vm_vf_transmit_bytes_total", counter, plain, "address", fromKernel, "Bytes that the virtual function sent.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Transmit.Bytes }),
	},
	{
		"virtnode_vm_vf_transmit_packets_total", counter, plain, "address", fromKernel, "Packets that the virtual function sent.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Transmit.Packets }),
	},
	{
		"virtnode_vm_vf_transmit_drops_total", counter, plain, "address", fromKernel, "Packets from the virtual function that were dropped.",
		vfs(func(vf *qemu.VF) qemu.Num { return vf.Transmit.Drops }),
	},
}

func process(value func(*qemu.Process) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Process != nil {
			w.put(value(vm.Process))
		}
	}
}

func roles(value func(*qemu.Usage) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Process == nil {
			return
		}
		for role := range vm.Process.Threads {
			w.putLabel("role", qemu.Roles[role], value(&vm.Process.Threads[role]))
		}
	}
}

func cpuThreads(value func(*qemu.Usage) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Process == nil {
			return
		}
		for i := range vm.Process.VCPUs {
			w.putIndex("vcpu", vm.Process.VCPUs[i].Index, value(&vm.Process.VCPUs[i].Usage))
		}
	}
}

func ioThreads(value func(*qemu.Usage) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Process == nil {
			return
		}
		for i := range vm.Process.IOThreads {
			w.putLabel("iothread", vm.Process.IOThreads[i].Name, value(&vm.Process.IOThreads[i].Usage))
		}
	}
}

func vfs(value func(*qemu.VF) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Process == nil {
			return
		}
		for i := range vm.Process.VFs {
			w.putLabel("address", vm.Process.VFs[i].Address, value(&vm.Process.VFs[i]))
		}
	}
}

func emitProcessMemory(w *writer, vm *qemu.VM) {
	if vm.Process == nil {
		return
	}
	memory := &vm.Process.Memory
	w.putLabel("kind", "anonymous", memory.Anonymous)
	w.putLabel("kind", "file", memory.File)
	w.putLabel("kind", "shared", memory.Shared)
	w.putLabel("kind", "huge", memory.Huge)
	w.putLabel("kind", "swap", memory.Swap)
}

func emitVFInfo(w *writer, vm *qemu.VM) {
	if vm.Process == nil {
		return
	}
	for i := range vm.Process.VFs {
		vf := &vm.Process.VFs[i]
		w.putLabels(qemu.Some(1), "address", vf.Address, "pf", vf.PF, "vf", strconv.Itoa(vf.Index))
	}
}
