package metrics

import (
	"slices"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// libvirtExporterFamilies are those of Debian's prometheus-libvirt-exporter.
var libvirtExporterFamilies = [...]family[qemu.VM]{
	{
		"libvirt_domain_state_code", gauge, plain, "", fromLight, "State of the domain, as virDomainState counts them.",
		func(w *writer, vm *qemu.VM) { w.put(stateCode(vm.State)) },
	},
	{
		"libvirt_domain_info_maximum_memory_bytes", gauge, plain, "", fromMonitor, "Memory that the guest may have at most.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Maximum) },
	},
	{
		"libvirt_domain_info_memory_usage_bytes", gauge, plain, "", fromMonitor, "Memory that the balloon leaves to the guest.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Memory.Current) },
	},
	{
		"libvirt_domain_info_virtual_cpus", gauge, plain, "", fromMonitor, "Virtual CPUs that are online.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Current) },
	},
	{
		"libvirt_domain_info_cpu_time_seconds_total", counter, nanoseconds, "", fromMonitor, "CPU time of the domain.",
		func(w *writer, vm *qemu.VM) { w.put(vm.CPU.Time) },
	},
	{
		"libvirt_domain_block_stats_read_bytes_total", counter, plain, "source_file target_device", fromMonitor, "Bytes read from a disk.",
		sourceDisks(func(disk *qemu.Block) qemu.Num { return disk.Read.Bytes }),
	},
	{
		"libvirt_domain_block_stats_read_requests_total", counter, plain, "source_file target_device", fromMonitor, "Read requests to a disk.",
		sourceDisks(func(disk *qemu.Block) qemu.Num { return disk.Read.Requests }),
	},
	{
		"libvirt_domain_block_stats_write_bytes_total", counter, plain, "source_file target_device", fromMonitor, "Bytes written to a disk.",
		sourceDisks(func(disk *qemu.Block) qemu.Num { return disk.Write.Bytes }),
	},
	{
		"libvirt_domain_block_stats_write_requests_total", counter, plain, "source_file target_device", fromMonitor, "Write requests to a disk.",
		sourceDisks(func(disk *qemu.Block) qemu.Num { return disk.Write.Requests }),
	},
	{
		"libvirt_domain_interface_stats_receive_bytes_total", counter, plain, "source_bridge target_device", fromLight, "Bytes received on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Bytes }),
	},
	{
		"libvirt_domain_interface_stats_receive_packets_total", counter, plain, "source_bridge target_device", fromLight, "Packets received on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Packets }),
	},
	{
		"libvirt_domain_interface_stats_receive_errors_total", counter, plain, "source_bridge target_device", fromLight, "Errors on packets received on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Errors }),
	},
	{
		"libvirt_domain_interface_stats_receive_drops_total", counter, plain, "source_bridge target_device", fromLight, "Dropped packets received on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Drops }),
	},
	{
		"libvirt_domain_interface_stats_transmit_bytes_total", counter, plain, "source_bridge target_device", fromLight, "Bytes sent on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Bytes }),
	},
	{
		"libvirt_domain_interface_stats_transmit_packets_total", counter, plain, "source_bridge target_device", fromLight, "Packets sent on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Packets }),
	},
	{
		"libvirt_domain_interface_stats_transmit_errors_total", counter, plain, "source_bridge target_device", fromLight, "Errors on packets sent on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Errors }),
	},
	{
		"libvirt_domain_interface_stats_transmit_drops_total", counter, plain, "source_bridge target_device", fromLight, "Dropped packets sent on an interface.",
		bridgedNICs(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Drops }),
	},
}

// libvirtExporterPage are its families without a domain.
var libvirtExporterPage = [...]family[*qemu.Snapshot]{
	{
		"libvirt_up", gauge, plain, "", fromAgent, "Whether every libvirt daemon that is known answers.",
		func(w *writer, s **qemu.Snapshot) {
			daemons, up := 0, true
			for _, source := range (*s).Sources {
				if source.Class == qemu.Light {
					daemons++
					up = up && source.Up()
				}
			}
			w.put(boolean(up && daemons > 0))
		},
	},
	{
		"libvirt_domains_number", gauge, plain, "", fromLight, "Domains of all libvirt daemons.",
		func(w *writer, s **qemu.Snapshot) {
			count := uint64(0)
			for i := range (*s).VMs {
				if vm := &(*s).VMs[i]; vm.Source != qemu.SourceProc && active(vm.State) {
					count++
				}
			}
			w.put(qemu.Some(count))
		},
	},
}

// stateCode is a state's number in virDomainState.
func stateCode(state qemu.State) qemu.Num {
	codes := []qemu.State{
		qemu.StateNone, qemu.StateRunning, qemu.StateBlocked, qemu.StatePaused, qemu.StateShutdown, qemu.StateShutoff, qemu.StateCrashed, qemu.StatePMSuspended,
	}
	code := slices.Index(codes, state)
	return qemu.Num{V: uint64(max(code, 0)), Set: code >= 0}
}

func sourceDisks(value func(*qemu.Block) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Blocks {
			disk := &vm.Blocks[i]
			if device := diskOf(vm, disk.Device); device.Kind != "cdrom" { // which the other one leaves out
				w.putLabels(value(disk), "source_file", device.Source, "target_device", disk.Device)
			}
		}
	}
}

func bridgedNICs(value func(*qemu.Interface) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Interfaces {
			nic := &vm.Interfaces[i]
			w.putLabels(value(nic), "source_bridge", nicOf(vm, nic.Name).Bridge, "target_device", nic.Name)
		}
	}
}

// diskOf is what the XML says about a disk; the zero value without an XML.
func diskOf(vm *qemu.VM, target string) qemu.DiskDevice {
	if vm.Definition != nil {
		for _, disk := range vm.Definition.Disks {
			if disk.Target == target {
				return disk
			}
		}
	}
	return qemu.DiskDevice{}
}

// nicOf is what the XML says about an interface.
func nicOf(vm *qemu.VM, target string) qemu.InterfaceDevice {
	if vm.Definition != nil {
		for _, nic := range vm.Definition.Interfaces {
			if nic.Target == target {
				return nic
			}
		}
	}
	return qemu.InterfaceDevice{}
}
