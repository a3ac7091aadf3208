package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// agentFamilies are the agents inside the machines.
var agentFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_guest_agent_connected", gauge, plain, "", fromControl, "Whether something in the guest has opened the channel of its QEMU guest agent. No series for a VM without that channel.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Agent) },
	},
}

// emitInfo tells what a machine is. Labels that do not apply are empty, which
// to Prometheus is as if they were not there.
func emitInfo(w *writer, vm *qemu.VM) {
	none := qemu.Definition{}
	what := &none
	if vm.Definition != nil {
		what = vm.Definition
	}
	w.putLabels(
		qemu.Some(1), "source", vm.Source, "kind", string(vm.Kind), "domain", vm.Domain, "pod", vm.PodName, "pod_uid", vm.Pod,
		"machine", what.Machine, "flavor", what.Flavor, "os", what.OS,
	)
}
