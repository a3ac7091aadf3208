package metrics

import (
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// cpuFamilies are the CPU time of a whole machine: the kernel's number where
// its process is known, else libvirt's.
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
	{
		"virtnode_vm_cpu_cache_occupancy_bytes", gauge, plain, "monitor bank", fromMonitor, "Part of a last-level cache that monitored virtual CPUs fill (resctrl).",
		func(w *writer, vm *qemu.VM) {
			for i := range vm.Caches {
				c := &vm.Caches[i]
				w.putLabels(c.Bytes, "monitor", c.Monitor, "bank", decimal(c.Bank))
			}
		},
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
		"virtnode_vm_vcpu_wait_seconds_total", counter, nanoseconds, "vcpu", fromMonitor, "Time the virtual CPU waited in the run queue, as the scheduler's own statistics count it (wait_sum); 0 unless sysctl kernel.sched_schedstats is on. The delay is always counted.",
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
		"virtnode_vm_memory_resident_bytes", gauge, plain, "", fromMonitor, "Resident memory of the QEMU process, as /proc/PID/stat has it.",
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
	{
		"virtnode_vm_block_threshold_bytes", gauge, plain, "device", fromMonitor, "Offset in the image at which libvirt tells its clients to make room, if one has asked for that.",
		disks(func(disk *qemu.Block) qemu.Num { return disk.Threshold }),
	},
	{
		"virtnode_vm_block_latency_minimum_seconds", gauge, nanoseconds, "device operation interval", fromMonitor, "Shortest time that a request took in the last interval (in seconds), if the disk's XML asks for intervals.",
		latencies(func(s *qemu.Spread) qemu.Num { return s.Minimum }),
	},
	{
		"virtnode_vm_block_latency_maximum_seconds", gauge, nanoseconds, "device operation interval", fromMonitor, "Longest time that a request took in the last interval.",
		latencies(func(s *qemu.Spread) qemu.Num { return s.Maximum }),
	},
	{
		"virtnode_vm_block_latency_average_seconds", gauge, nanoseconds, "device operation interval", fromMonitor, "Time that a request took on average in the last interval.",
		latencies(func(s *qemu.Spread) qemu.Num { return s.Average }),
	},
	{"virtnode_vm_block_queue_depth_average", gauge, nanoseconds, "device operation interval", fromMonitor, "Requests that were on their way on average in the last interval.", emitQueueDepth},
	{"virtnode_vm_block_requests_by_latency_total", counter, plain, "device operation below", fromMonitor, "Requests that took less than so many seconds, if the disk's XML asks for a latency histogram; histogram_quantile() wants the label below as le.", emitBlockBins},
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

// spreads calls each with what requests took in an interval, by operation.
func spreads(vm *qemu.VM, each func(b *qemu.BlockTime, operation string, s *qemu.Spread)) {
	for i := range vm.BlockTimes {
		b := &vm.BlockTimes[i]
		each(b, "read", &b.Read)
		each(b, "write", &b.Write)
		each(b, "flush", &b.Flush)
	}
}

func latencies(value func(*qemu.Spread) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		spreads(vm, func(b *qemu.BlockTime, operation string, s *qemu.Spread) {
			w.putLabels(value(s), "device", b.Device, "operation", operation, "interval", decimal(b.Interval))
		})
	}
}

func emitQueueDepth(w *writer, vm *qemu.VM) {
	for i := range vm.BlockTimes {
		b := &vm.BlockTimes[i]
		w.putLabels(b.ReadDepth, "device", b.Device, "operation", "read", "interval", decimal(b.Interval))
		w.putLabels(b.WriteDepth, "device", b.Device, "operation", "write", "interval", decimal(b.Interval))
	}
}

// emitBlockBins makes the bins cumulative. One ends where the next begins,
// and the last of a histogram nowhere.
func emitBlockBins(w *writer, vm *qemu.VM) {
	var sum uint64
	var text [24]byte
	for i := range vm.BlockBins {
		bin := &vm.BlockBins[i]
		if bin.Start == 0 {
			sum = 0
		}
		sum += bin.Count.V
		below := []byte("+Inf")
		if i+1 < len(vm.BlockBins) && vm.BlockBins[i+1].Start > bin.Start {
			below = appendDecimal(text[:0], vm.BlockBins[i+1].Start, 9)
		}
		w.putLabels(qemu.Some(sum), "device", bin.Device, "operation", bin.Operation, "below", string(below))
	}
}

// iothreadFamilies are how I/O threads poll.
var iothreadFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_iothread_poll_maximum_seconds", gauge, nanoseconds, "iothread", fromMonitor, "How long an I/O thread may poll for requests before it sleeps; 0 is no polling.",
		iothreads(func(t *qemu.IOThread) qemu.Num { return t.PollMaximum }),
	},
	{
		"virtnode_vm_iothread_poll_grow_ratio", gauge, plain, "iothread", fromMonitor, "Factor by which the polling time grows; 0 leaves it to QEMU.",
		iothreads(func(t *qemu.IOThread) qemu.Num { return t.PollGrow }),
	},
	{
		"virtnode_vm_iothread_poll_shrink_ratio", gauge, plain, "iothread", fromMonitor, "Divisor by which the polling time shrinks; 0 leaves it to QEMU.",
		iothreads(func(t *qemu.IOThread) qemu.Num { return t.PollShrink }),
	},
}

func iothreads(value func(*qemu.IOThread) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.IOThreads {
			w.putIndex("iothread", vm.IOThreads[i].ID, value(&vm.IOThreads[i]))
		}
	}
}

// kvmFamilies are what KVM counts, under KVM's names, which differ from one
// processor to another.
var kvmFamilies = [...]family[qemu.VM]{
	{"virtnode_vm_kvm_events_total", counter, plain, "stat", fromMonitor, "Events that KVM counted for the whole machine.", kvmStats(qemu.KVMSum, false)},
	{"virtnode_vm_kvm_seconds_total", counter, nanoseconds, "stat", fromMonitor, "Time that KVM measured for the whole machine.", kvmStats(qemu.KVMSum, true)},
	{"virtnode_vm_kvm_value", gauge, plain, "stat", fromMonitor, "What KVM has for the whole machine now, such as mapped pages by size.", kvmStats(qemu.KVMCurrent, false)},
	{"virtnode_vm_kvm_peak", gauge, plain, "stat", fromMonitor, "The most that KVM has had for the whole machine.", kvmStats(qemu.KVMPeak, false)},
	{"virtnode_vm_vcpu_kvm_events_total", counter, plain, "vcpu stat", fromMonitor, "Events that KVM counted for a virtual CPU, such as exits from the guest by reason.", vcpuKVMStats(qemu.KVMSum, false)},
	{"virtnode_vm_vcpu_kvm_seconds_total", counter, nanoseconds, "vcpu stat", fromMonitor, "Time that KVM measured for a virtual CPU.", vcpuKVMStats(qemu.KVMSum, true)},
	{"virtnode_vm_vcpu_kvm_value", gauge, plain, "vcpu stat", fromMonitor, "What KVM has for a virtual CPU now.", vcpuKVMStats(qemu.KVMCurrent, false)},
	{"virtnode_vm_vcpu_kvm_peak", gauge, plain, "vcpu stat", fromMonitor, "The most that KVM has had for a virtual CPU.", vcpuKVMStats(qemu.KVMPeak, false)},
}

func kvmStats(of qemu.KVMType, inSeconds bool) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.KVM {
			if name, ok := kvmName(&vm.KVM[i], of, inSeconds); ok {
				w.putLabel("stat", name, vm.KVM[i].Value)
			}
		}
	}
}

func vcpuKVMStats(of qemu.KVMType, inSeconds bool) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		for i := range vm.VCPUKVM {
			if name, ok := kvmName(&vm.VCPUKVM[i], of, inSeconds); ok {
				w.putLabels(vm.VCPUKVM[i].Value, "vcpu", decimal(vm.VCPUKVM[i].VCPU), "stat", name)
			}
		}
	}
}

// kvmName returns the name of a statistic if it is of a type and unit. Sums
// whose name ends in _ns are times.
func kvmName(stat *qemu.KVMStat, of qemu.KVMType, inSeconds bool) (string, bool) {
	name, isTime := strings.CutSuffix(stat.Name, "_ns")
	isTime = isTime && of == qemu.KVMSum
	if !isTime {
		name = stat.Name
	}
	return name, stat.Type == of && isTime == inSeconds
}

// dirtyRateFamilies are how fast the guest writes to memory, as somebody else
// had it measured.
var dirtyRateFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_dirty_rate_state", gauge, plain, "state", fromMonitor, "How the last measurement of the dirty rate is. Always 1. The agent starts none.",
		func(w *writer, vm *qemu.VM) { w.putState("state", string(vm.DirtyRate.State)) },
	},
	{
		"virtnode_vm_dirty_rate_bytes_per_second", gauge, plain, "", fromMonitor, "How fast the guest wrote to memory when that was last measured.",
		func(w *writer, vm *qemu.VM) {
			if vm.DirtyRate.State == qemu.DirtyRateMeasured {
				w.put(vm.DirtyRate.Rate)
			}
		},
	},
}

// jobFamilies are how far a migration, or a job like it, is while it lasts.
var jobFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_job_state", gauge, plain, "job", fromMonitor, "The long job that libvirt does on the machine, such as a migration. Always 1; without one there is no series.",
		func(w *writer, vm *qemu.VM) { w.putState("job", vm.Job.Kind) },
	},
	{
		"virtnode_vm_job_elapsed_seconds", gauge, nanoseconds, "", fromMonitor, "How long the job has taken so far.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.Elapsed) },
	},
	{
		"virtnode_vm_job_downtime_seconds", gauge, nanoseconds, "", fromMonitor, "How long the machine is expected to stand still at the end of the job, or did.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.Downtime) },
	},
	{
		"virtnode_vm_job_setup_seconds", gauge, nanoseconds, "", fromMonitor, "How long it took to begin the job.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.Setup) },
	},
	{
		"virtnode_vm_job_total_bytes", gauge, plain, "part", fromMonitor, "What the job has to transfer.",
		progress(func(p *qemu.Progress) qemu.Num { return p.Total }),
	},
	{
		"virtnode_vm_job_processed_bytes", gauge, plain, "part", fromMonitor, "What the job has transferred; memory that the guest writes to again counts again.",
		progress(func(p *qemu.Progress) qemu.Num { return p.Processed }),
	},
	{
		"virtnode_vm_job_remaining_bytes", gauge, plain, "part", fromMonitor, "What the job has yet to transfer.",
		progress(func(p *qemu.Progress) qemu.Num { return p.Remaining }),
	},
	{
		"virtnode_vm_job_throughput_bytes_per_second", gauge, plain, "part", fromMonitor, "How fast the job transfers.",
		progress(func(p *qemu.Progress) qemu.Num { return p.Rate }),
	},
	{
		"virtnode_vm_job_memory_dirtied_bytes_per_second", gauge, plain, "", fromMonitor, "How fast the guest writes to memory, as the job measures it; a migration ends only if this is less than its throughput.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.MemoryDirtied) },
	},
	{
		"virtnode_vm_job_memory_iteration", gauge, plain, "", fromMonitor, "Which pass over the guest's memory the job is in.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.Iteration) },
	},
	{
		"virtnode_vm_job_postcopy_requests", gauge, plain, "", fromMonitor, "Pages that the other end had to ask for after the machine had moved.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.PostcopyRequests) },
	},
	{
		"virtnode_vm_job_throttle_percent", gauge, plain, "", fromMonitor, "Part of its time that auto-converge takes from the guest, so that the migration ends.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.Throttle) },
	},
	{
		"virtnode_vm_job_vfio_transferred_bytes", gauge, plain, "", fromMonitor, "State of passed-through devices that the job has transferred.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Job.VFIO) },
	},
}

func progress(value func(*qemu.Progress) qemu.Num) func(*writer, *qemu.VM) {
	return func(w *writer, vm *qemu.VM) {
		w.putLabel("part", "memory", value(&vm.Job.Memory))
		w.putLabel("part", "disk", value(&vm.Job.Disk))
	}
}

// healthFamilies are how a machine's monitor class is.
var healthFamilies = [...]family[qemu.VM]{
	{
		"virtnode_vm_monitor_state", gauge, plain, "reason", fromAgent, "How asking the machine's QEMU went, in one word: Ready, or what is wrong. Always 1.",
		func(w *writer, vm *qemu.VM) { w.putState("reason", string(vm.Monitor.Reason)) },
	},
	{
		"virtnode_vm_monitor_last_success_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When the machine's QEMU last told everything.",
		func(w *writer, vm *qemu.VM) { w.put(unixTime(vm.Monitor.LastSuccess)) },
	},
	{
		"virtnode_vm_monitor_age_seconds", gauge, nanoseconds, "", fromAgent, "How old the numbers of the machine's QEMU were when they were served.",
		func(w *writer, vm *qemu.VM) { w.put(vm.Monitor.Age) },
	},
	{
		"virtnode_vm_monitor_calls_abandoned_total", counter, plain, "", fromAgent, "Calls about the machine's QEMU that were given up at their deadline.",
		func(w *writer, vm *qemu.VM) {
			w.put(qemu.Num{V: vm.Monitor.Abandoned, Set: vm.Monitor.Reason != ""})
		},
	},
}

// decimal is a number as a label's value.
func decimal[N uint32 | uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }
