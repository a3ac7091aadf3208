package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// infoFamilies say what a machine is.
var infoFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_info", gauge, plain, "source kind domain pod pod_uid machine flavor os", fromLight, "A virtual machine, always 1. source is who knows it: proc for a QEMU process without libvirt. kind is who manages it: kubevirt, openstack, libvirt or qemu. domain is its name in libvirt. flavor is OpenStack's.",
		emitInfo,
	},
}

// stateFamilies say how a machine is.
var stateFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_state", gauge, plain, "state", fromLight, "The state that the machine is in. Always 1; other states have no series.",
		func(w *writer, vm *qemu.VM) { w.putState("state", string(vm.State)) },
	},
	{
		"virtnode_vm_state_reason", gauge, plain, "reason", fromLight, "Why the machine is in its state, in libvirt's words. Always 1.",
		func(w *writer, vm *qemu.VM) { w.putState("reason", vm.StateReason) },
	},
}

// networkFamilies are the interfaces, as libvirt counts them.
var networkFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_network_receive_bytes_total", counter, plain, "interface", fromLight, "Bytes that the guest received.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Bytes }),
	},
	{
		"virtnode_vm_network_receive_packets_total", counter, plain, "interface", fromLight, "Packets that the guest received.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Packets }),
	},
	{
		"virtnode_vm_network_receive_errors_total", counter, plain, "interface", fromLight, "Errors on packets for the guest.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Errors }),
	},
	{
		"virtnode_vm_network_receive_drops_total", counter, plain, "interface", fromLight, "Packets for the guest that were dropped.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Receive.Drops }),
	},
	{
		"virtnode_vm_network_transmit_bytes_total", counter, plain, "interface", fromLight, "Bytes that the guest sent.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Bytes }),
	},
	{
		"virtnode_vm_network_transmit_packets_total", counter, plain, "interface", fromLight, "Packets that the guest sent.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Packets }),
	},
	{
		"virtnode_vm_network_transmit_errors_total", counter, plain, "interface", fromLight, "Errors on packets from the guest.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Errors }),
	},
	{
		"virtnode_vm_network_transmit_drops_total", counter, plain, "interface", fromLight, "Packets from the guest that were dropped.",
		nics(func(nic *qemu.Interface) qemu.Num { return nic.Transmit.Drops }),
	},
}

func nics(value func(*qemu.Interface) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Interfaces {
			w.putLabel("interface", vm.Interfaces[i].Name, value(&vm.Interfaces[i]))
		}
	}
}

// perfFamilies are the counters that a domain's XML enables.
var perfFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_perf_events_total", counter, plain, "event", fromLight, "Events that the processor or the kernel counted while the machine ran, if its XML asks for that.",
		func(w *writer, vm *qemu.VM) { emitPerf(w, vm, plain) },
	},
	{
		"virtnode_vm_perf_seconds_total", counter, nanoseconds, "clock", fromLight, "CPU time by the kernel's perf clocks, if the machine's XML asks for that.",
		func(w *writer, vm *qemu.VM) { emitPerf(w, vm, nanoseconds) },
	},
}

// emitPerf emits the counters of a unit. Cache occupancy and bandwidth by
// perf (cmt, mbmt, mbml) ended with Linux 4.14; resctrl tells them now.
func emitPerf(w *writer, vm *qemu.VM, of unit) {
	for _, perf := range vm.Perf {
		switch perf.Name {
		case "cmt", "mbmt", "mbml":
		case "cpu_clock", "task_clock":
			if of == nanoseconds {
				w.putLabel("clock", perf.Name[:len(perf.Name)-len("_clock")], perf.Value)
			}
		default:
			if of == plain {
				w.putLabel("event", perf.Name, perf.Value)
			}
		}
	}
}

// bandwidthFamilies are the memory traffic that a domain's XML monitors.
var bandwidthFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_memory_bandwidth_local_bytes_total", counter, plain, "monitor node", fromLight, "Memory traffic of monitored virtual CPUs through the controller of their own node (resctrl).",
		bandwidths(func(b *qemu.Bandwidth) qemu.Num { return b.Local }),
	},
	{
		"virtnode_vm_memory_bandwidth_bytes_total", counter, plain, "monitor node", fromLight, "Memory traffic of monitored virtual CPUs through all memory controllers (resctrl).",
		bandwidths(func(b *qemu.Bandwidth) qemu.Num { return b.Total }),
	},
}

func bandwidths(value func(*qemu.Bandwidth) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.Bandwidth {
			b := &vm.Bandwidth[i]
			w.putLabels(value(b), "monitor", b.Monitor, "node", decimal(b.Node))
		}
	}
}
