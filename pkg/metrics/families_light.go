package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// infoFamilies say what a machine is.
var infoFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_info", gauge, plain, "source", fromLight, "A virtual machine and the source that knows it; proc is a QEMU process without libvirt. Always 1.",
		func(w *writer, vm *qemu.VM) { w.putLabel("source", vm.Source, qemu.Some(1)) },
	},
}

// stateFamilies say how a machine is.
var stateFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_state", gauge, plain, "state", fromLight, "The state that the machine is in. Always 1; other states have no series.",
		func(w *writer, vm *qemu.VM) { w.putState("state", string(vm.State)) },
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
