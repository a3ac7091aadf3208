package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// threadFamilies are the threads of a machine's QEMU process, by role.
var threadFamilies = [...]family[qemu.VM]{
	{"virtnode_vm_thread_cpu_seconds_total", counter, ticks, "role", fromKernel, "CPU time of the QEMU process by what its threads do; other are workers, ended threads too, and all without a name. The sum is the process's.", emitRoles},
}

// processFamilies are a machine's QEMU process.
var processFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_process_resident_memory_bytes", gauge, plain, "", fromKernel, "Resident memory of the QEMU process, as the kernel reports it.",
		func(w *writer, vm *qemu.VM) {
			if vm.Process != nil {
				w.put(vm.Process.Resident)
			}
		},
	},
	{
		"virtnode_vm_process_start_time_seconds", gauge, nanoseconds, "", fromKernel, "When the QEMU process started; counters begin anew then.",
		func(w *writer, vm *qemu.VM) {
			if vm.Process != nil {
				w.put(unixTime(vm.Process.Start))
			}
		},
	},
}

func emitRoles(w *writer, vm *qemu.VM) {
	if vm.Process == nil {
		return
	}
	for role, used := range vm.Process.CPU {
		w.putLabel("role", qemu.Roles[role], used)
	}
}
