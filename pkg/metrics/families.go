package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// Where the values of a family come from, and what reading them costs.
const (
	fromKernel  = "kernel"
	fromBPF     = "bpf"
	fromLight   = "light"
	fromMonitor = "monitor"
	fromControl = "control"
	fromAgent   = "agent"
)

// vmLabels are on every series of a virtual machine.
const vmLabels = "namespace name uuid"

func labelVM(buf []byte, vm *qemu.VM) []byte {
	buf = appendLabel(buf, "namespace", vm.Namespace)
	buf = appendLabel(append(buf, ','), "name", vm.Name)
	return appendLabel(append(buf, ','), "uuid", vm.UUID)
}

// group is families of virtual machines that are switched on and off together.
type group struct {
	name     string
	standard bool // on, unless the configuration says otherwise
	families []family[qemu.VM]
}

// vmGroups are all families of a virtual machine, in the order of the page.
var vmGroups = [...]group{
	{"info", true, infoFamilies[:]},
	{"state", true, stateFamilies[:]},
	{"guest-agent", true, agentFamilies[:]},
	{"health", true, healthFamilies[:]},
	{"cpu", true, cpuFamilies[:]},
	{"vcpu", true, vcpuFamilies[:]},
	{"memory", true, memoryFamilies[:]},
	{"network", true, networkFamilies[:]},
	{"block", true, blockFamilies[:]},
	{"iothread", true, iothreadFamilies[:]},
	{"kvm", true, kvmFamilies[:]},
	{"perf", true, perfFamilies[:]},
	{"bandwidth", true, bandwidthFamilies[:]},
	{"dirtyrate", false, dirtyRateFamilies[:]},
	{"job", true, jobFamilies[:]},
	{"thread", true, threadFamilies[:]},
	{"thread_detail", false, threadDetailFamilies[:]},
	{"sched", true, schedFamilies[:]},
	{"process", true, processFamilies[:]},
	{"process_detail", false, processDetailFamilies[:]},
	{"cgroup", true, cgroupFamilies[:]},
	{"pressure", true, pressureFamilies[:]},
	{"vf", true, vfFamilies[:]},
}
