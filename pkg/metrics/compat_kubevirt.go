package metrics

import (
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// kubevirtFamilies are those of KubeVirt's virt-handler that say how a
// machine does.
var kubevirtFamilies = [...]family[qemu.VM]{
	{
		"kubevirt_vmi_memory_resident_bytes", gauge, plain, "", fromMonitor, "Resident memory of the QEMU process.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Resident) },
	},
	{
		"kubevirt_vmi_memory_available_bytes", gauge, plain, "", fromMonitor, "Memory that the guest sees as its total.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Available) },
	},
	{
		"kubevirt_vmi_memory_unused_bytes", gauge, plain, "", fromMonitor, "Memory that the guest leaves wholly unused.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Unused) },
	},
	{
		"kubevirt_vmi_memory_cached_bytes", gauge, plain, "", fromMonitor, "Memory that the guest could take back from its disk caches.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.DiskCaches) },
	},
	{
		"kubevirt_vmi_memory_swap_in_traffic_bytes", gauge, plain, "", fromMonitor, "Memory that the guest read from its swap space.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.SwapIn) },
	},
	{
		"kubevirt_vmi_memory_swap_out_traffic_bytes", gauge, plain, "", fromMonitor, "Memory that the guest wrote to its swap space.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.SwapOut) },
	},
	{
		"kubevirt_vmi_memory_actual_balloon_bytes", gauge, plain, "", fromMonitor, "Memory that the balloon leaves to the guest.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Current) },
	},
	{
		"kubevirt_vmi_memory_usable_bytes", gauge, plain, "", fromMonitor, "Memory that the guest could use without swapping.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Usable) },
	},
	{
		"kubevirt_vmi_memory_domain_bytes", gauge, plain, "", fromMonitor, "Memory that the guest may have at most.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Maximum) },
	},
	{
		"kubevirt_vmi_memory_pgmajfault_total", counter, plain, "", fromMonitor, "Page faults in the guest that needed I/O.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.MajorFaults) },
	},
	{
		"kubevirt_vmi_memory_pgminfault_total", counter, plain, "", fromMonitor, "Page faults in the guest that needed no I/O.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.MinorFaults) },
	},
	{
		"kubevirt_vmi_cpu_usage_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine, QEMU included.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.Time) },
	},
	{
		"kubevirt_vmi_cpu_user_usage_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine in user mode of the host.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.User) },
	},
	{
		"kubevirt_vmi_cpu_system_usage_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the whole machine in the host's kernel.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.System) },
	},
	{
		"kubevirt_vmi_vcpu_seconds_total", counter, nanoseconds, "id state", fromMonitor, "Time the virtual CPU ran on a physical CPU; the state is always running.",
		emitRunningTime,
	},
	{
		"kubevirt_vmi_vcpu_wait_seconds_total", counter, nanoseconds, "id", fromMonitor, "Time the virtual CPU waited in the run queue, as sysctl kernel.sched_schedstats counts it; 0 unless that is on.",
		idVCPUs(func(cpu *qemu.VCPU) qemu.Num { return cpu.Wait }),
	},
	{
		"kubevirt_vmi_vcpu_delay_seconds_total", counter, nanoseconds, "id", fromMonitor, "Time the virtual CPU could run but had no physical CPU.",
		idVCPUs(func(cpu *qemu.VCPU) qemu.Num { return cpu.Delay }),
	},
	{
		"kubevirt_vmi_storage_iops_read_total", counter, plain, "drive", fromMonitor, "Read requests of the guest.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Read.Requests }),
	},
	{
		"kubevirt_vmi_storage_iops_write_total", counter, plain, "drive", fromMonitor, "Write requests of the guest.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Write.Requests }),
	},
	{
		"kubevirt_vmi_storage_read_traffic_bytes_total", counter, plain, "drive", fromMonitor, "Bytes that the guest read.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Read.Bytes }),
	},
	{
		"kubevirt_vmi_storage_write_traffic_bytes_total", counter, plain, "drive", fromMonitor, "Bytes that the guest wrote.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Write.Bytes }),
	},
	{
		"kubevirt_vmi_storage_read_times_seconds_total", counter, nanoseconds, "drive", fromMonitor, "Time that read requests took.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Read.Time }),
	},
	{
		"kubevirt_vmi_storage_write_times_seconds_total", counter, nanoseconds, "drive", fromMonitor, "Time that write requests took.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Write.Time }),
	},
	{
		"kubevirt_vmi_storage_flush_requests_total", counter, plain, "drive", fromMonitor, "Flush requests of the guest.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Flush.Requests }),
	},
	{
		"kubevirt_vmi_storage_flush_times_seconds_total", counter, nanoseconds, "drive", fromMonitor, "Time that flush requests took.",
		drives(func(disk *qemu.Block) qemu.Num { return disk.Flush.Time }),
	},
	{
		"kubevirt_vmi_network_receive_bytes_total", counter, plain, "interface", fromLight, "Bytes that the guest received.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Bytes }),
	},
	{
		"kubevirt_vmi_network_receive_packets_total", counter, plain, "interface", fromLight, "Packets that the guest received.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Packets }),
	},
	{
		"kubevirt_vmi_network_receive_errors_total", counter, plain, "interface", fromLight, "Errors on packets that the guest received.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Errors }),
	},
	{
		"kubevirt_vmi_network_receive_packets_dropped_total", counter, plain, "interface", fromLight, "Dropped packets that the guest received.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Drops }),
	},
	{
		"kubevirt_vmi_network_transmit_bytes_total", counter, plain, "interface", fromLight, "Bytes that the guest sent.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Bytes }),
	},
	{
		"kubevirt_vmi_network_transmit_packets_total", counter, plain, "interface", fromLight, "Packets that the guest sent.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Packets }),
	},
	{
		"kubevirt_vmi_network_transmit_errors_total", counter, plain, "interface", fromLight, "Errors on packets that the guest sent.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Errors }),
	},
	{
		"kubevirt_vmi_network_transmit_packets_dropped_total", counter, plain, "interface", fromLight, "Dropped packets that the guest sent.",
		namedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Drops }),
	},
	{
		"kubevirt_vmi_migration_data_bytes_total", counter, plain, "", fromMonitor, "What a migration has to transfer.",
		migrated(func(job *qemu.Job) []qemu.Num { return []qemu.Num{job.Memory.Total, job.Disk.Total} }),
	},
	{
		"kubevirt_vmi_migration_data_processed_bytes", gauge, plain, "", fromMonitor, "What a migration has transferred.",
		migrated(func(job *qemu.Job) []qemu.Num { return []qemu.Num{job.Memory.Processed, job.Disk.Processed} }),
	},
	{
		"kubevirt_vmi_migration_data_remaining_bytes", gauge, plain, "", fromMonitor, "What a migration has yet to transfer.",
		migrated(func(job *qemu.Job) []qemu.Num { return []qemu.Num{job.Memory.Remaining, job.Disk.Remaining} }),
	},
	{
		"kubevirt_vmi_migration_memory_transfer_rate_bytes", gauge, plain, "", fromMonitor, "How fast a migration transfers memory.",
		migrated(func(job *qemu.Job) []qemu.Num { return []qemu.Num{job.Memory.Rate} }),
	},
}

// emitRunningTime keeps the label state, by which queries select. KubeVirt puts
// the state of the moment there, so that the counter jumps between series.
func emitRunningTime(w *writer, vm *qemu.VM) {
	for i := range vm.VCPUs {
		var digits [10]byte
		w.putLabels(vm.VCPUs[i].Time, "id", string(strconv.AppendUint(digits[:0], uint64(vm.VCPUs[i].Index), 10)), "state", string(qemu.VCPURunning))
	}
}

func idVCPUs(value func(*qemu.VCPU) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.VCPUs {
			w.putIndex("id", vm.VCPUs[i].Index, value(&vm.VCPUs[i]))
		}
	}
}

func drives(value func(*qemu.Block) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Blocks {
			disk := &vm.Blocks[i]
			w.putLabel("drive", userAlias(diskOf(vm, disk.Device).Alias, disk.Device), value(disk))
		}
	}
}

func namedNICs(value func(*qemu.Interface) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Interfaces {
			nic := &vm.Interfaces[i]
			w.putLabel("interface", userAlias(nicOf(vm, nic.Name).Alias, nic.Name), value(nic))
		}
	}
}

// userAlias is what KubeVirt calls a device: by the alias that it gave the
// device, which libvirt demands to begin with ua-, else by its name.
func userAlias(alias, name string) string {
	if given, found := strings.CutPrefix(alias, "ua-"); found && given != "" {
		return given
	}
	return name
}

// migrated sums what is known about a migration, while there is one.
func migrated(values func(*qemu.Job) []qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		if vm.Job.Kind != "migration out" {
			return
		}
		var sum qemu.Num
		for _, n := range values(&vm.Job) {
			if n.Set {
				sum = qemu.Some(sum.V + n.V)
			}
		}
		w.put(sum)
	}
}
