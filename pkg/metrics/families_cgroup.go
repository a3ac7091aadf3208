package metrics

import "github.com/virtnode/nodeagent/pkg/qemu"

// cgroupFamilies are a machine's control groups. Limits that are not set have
// no series.
var cgroupFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_cgroup_cpu_limit_cores", gauge, nanoseconds, "", fromKernel, "Physical CPUs that the tightest quota on the whole machine allows.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.CPULimit }),
	},
	{
		"virtnode_vm_cgroup_cpu_periods_total", counter, plain, "", fromKernel, "Periods of CPU quotas in which the machine wanted to run, over all its control groups.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.Periods }),
	},
	{
		"virtnode_vm_cgroup_cpu_throttled_periods_total", counter, plain, "", fromKernel, "Periods in which a CPU quota was used up and threads were stopped, over all control groups of the machine.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.Throttled }),
	},
	{
		"virtnode_vm_cgroup_cpu_throttled_seconds_total", counter, nanoseconds, "", fromKernel, "Time that threads were stopped because a CPU quota was used up, over all control groups of the machine.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.ThrottledTime }),
	},
	{
		"virtnode_vm_cgroup_memory_bytes", gauge, plain, "", fromKernel, "Memory in use in the machine's topmost control group: a pod, or libvirt's for the domain.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.Memory }),
	},
	{
		"virtnode_vm_cgroup_memory_limit_bytes", gauge, plain, "", fromKernel, "The tightest memory limit of the machine's control groups.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.MemoryLimit }),
	},
	{
		"virtnode_vm_cgroup_memory_headroom_bytes", gauge, plain, "", fromKernel, "Memory that is left below the first limit that the machine would run into.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.MemoryHeadroom }),
	},
	{
		"virtnode_vm_cgroup_memory_events_total", counter, plain, "event", fromKernel, "How often memory ran short in the machine's control group: high (above memory.high), max (at the limit), oom (at the limit and nothing to take back), oom_kill (a process was killed).",
		emitMemoryEvents,
	},
}

// pressureFamilies are how long a machine stood still for want of something.
var pressureFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_pressure_cpu_waiting_seconds_total", counter, nanoseconds, "", fromKernel, "Time that at least one thread of the machine's control group waited for a CPU.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.CPUPressure.Some }),
	},
	{
		"virtnode_vm_pressure_cpu_stalled_seconds_total", counter, nanoseconds, "", fromKernel, "Time that all threads of the machine's control group waited for a CPU.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.CPUPressure.Full }),
	},
	{
		"virtnode_vm_pressure_memory_waiting_seconds_total", counter, nanoseconds, "", fromKernel, "Time that at least one thread of the machine's control group waited for memory of the host.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.MemoryPressure.Some }),
	},
	{
		"virtnode_vm_pressure_memory_stalled_seconds_total", counter, nanoseconds, "", fromKernel, "Time that all threads of the machine's control group waited for memory of the host.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.MemoryPressure.Full }),
	},
	{
		"virtnode_vm_pressure_io_waiting_seconds_total", counter, nanoseconds, "", fromKernel, "Time that at least one thread of the machine's control group waited for I/O of the host.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.IOPressure.Some }),
	},
	{
		"virtnode_vm_pressure_io_stalled_seconds_total", counter, nanoseconds, "", fromKernel, "Time that all threads of the machine's control group waited for I/O of the host.",
		cgroups(func(c *qemu.Cgroup) qemu.Num { return c.IOPressure.Full }),
	},
}

func cgroups(value func(*qemu.Cgroup) qemu.Num) func(*writer, *qemu.VM) {
	return process(func(p *qemu.Process) qemu.Num { return value(&p.Cgroup) })
}

func emitMemoryEvents(w *writer, vm *qemu.VM) {
	if vm.Process == nil {
		return
	}
	events := &vm.Process.Cgroup.Events
	w.putLabel("event", "high", events.High)
	w.putLabel("event", "max", events.Max)
	w.putLabel("event", "oom", events.OOM)
	w.putLabel("event", "oom_kill", events.OOMKill)
}
