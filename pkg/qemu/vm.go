package qemu

// Num is an unsigned number that may be missing: the zero value is unknown,
// which is not zero.
type Num struct {
	V   uint64
	Set bool
}

// Some returns a number that is known.
func Some(v uint64) Num { return Num{V: v, Set: true} }

// VM is one virtual machine as all its sources together describe it. Parts
// that no source could tell are empty.
type VM struct {
	Namespace string // Kubernetes' namespace or OpenStack's project; else empty
	Name      string // as its users know it
	UUID      string // lower case with dashes; empty when nobody knows
	Source    string // name of the libvirt daemon, or SourceProc
	Domain    string // name in libvirt, or of the process
	Kind      Kind
	Pod       string // UID of the pod it runs in; empty: none
	PodName   string // empty: none, or unknown

	Definition *Definition // of its XML; nil until that was read
	Agent      Num         // 1 while a guest agent is connected; unset without its channel

	State       State       // light
	StateReason string      // light: why it is in that state, in libvirt's words
	Interfaces  []Interface // light
	Perf        []Perf      // light
	Bandwidth   []Bandwidth // light
	CPU         CPU         // monitor
	Caches      []Cache     // monitor
	VCPUs       []VCPU      // monitor, ascending index
	Current     Num         // monitor: virtual CPUs that are on
	Maximum     Num         // monitor: virtual CPUs that could be
	Memory      Memory      // monitor
	Blocks      []Block     // monitor
	BlockTimes  []BlockTime // monitor
	BlockBins   []BlockBin  // monitor, by disk, operation and ascending start
	IOThreads   []IOThread  // monitor
	KVM         []KVMStat   // monitor: of the whole machine
	VCPUKVM     []KVMStat   // monitor: of its virtual CPUs
	DirtyRate   DirtyRate   // monitor
	Job         Job         // monitor
	Process     *Process    // kernel; nil when no QEMU process runs

	Monitor Health // of the monitor class
}

// State is libvirt's virDomainState in libvirt's words; empty is unknown.
type State string

// The states of a machine.
const (
	StateNone        State = "nostate"
	StateRunning     State = "running"
	StateBlocked     State = "blocked"
	StatePaused      State = "paused"
	StateShutdown    State = "shutdown" // on its way down
	StateShutoff     State = "shutoff"
	StateCrashed     State = "crashed"
	StatePMSuspended State = "pmsuspended"
)

// CPU is the cpu group of libvirt's domain statistics, in nanoseconds.
type CPU struct {
	Time, User, System               Num
	HaltPollSuccess, HaltPollFailure Num
}

// VCPU is one virtual CPU, vcpu.N of libvirt's domain statistics.
type VCPU struct {
	Index  uint32
	State  VCPUState
	Time   Num // nanoseconds on a physical CPU
	Wait   Num // nanoseconds waiting for I/O
	Delay  Num // nanoseconds runnable, but waiting for a physical CPU
	Halted Num // 1 while the guest has halted it
}

// VCPUState is libvirt's virVcpuState in libvirt's words; empty is unknown.
type VCPUState string

// The states of a virtual CPU.
const (
	VCPUOffline VCPUState = "offline"
	VCPURunning VCPUState = "running"
	VCPUBlocked VCPUState = "blocked"
)

// Memory is the balloon group of libvirt's domain statistics: sizes in bytes,
// the rest in events. All but Current, Maximum and Resident come from the
// guest's balloon driver and are as old as LastUpdate says.
type Memory struct {
	Current    Num // what the balloon leaves to the guest
	Maximum    Num // what it may have at most
	Resident   Num // of the QEMU process
	Available  Num // what the guest sees as its total
	Unused     Num // what the guest leaves free
	Usable     Num // what the guest could use without swapping
	DiskCaches Num
	SwapIn     Num // since the guest's boot
	SwapOut    Num

	MajorFaults, MinorFaults         Num
	HugetlbAllocations, HugetlbFails Num

	LastUpdate Num // Unix time, seconds
}

// Interface is one network interface, net.N of libvirt's domain statistics.
// Receive and transmit are the guest's.
type Interface struct {
	Name              string // of the device on the host
	Receive, Transmit Traffic
}

// Traffic is one direction of an interface.
type Traffic struct {
	Bytes, Packets, Errors, Drops Num
}

// Block is one disk, block.N of libvirt's domain statistics.
type Block struct {
	Device             string // target in the guest, such as vda
	Read, Write, Flush IO
	Capacity           Num // bytes the guest sees
	Threshold          Num // bytes written at which libvirt raises its event; unknown when none is set
	Allocation         Num // bytes written to the image, at the highest
	Physical           Num // bytes of the image's container
}

// IO is one kind of request of a disk. Flushes have no bytes.
type IO struct {
	Requests, Bytes Num
	Time            Num // nanoseconds, summed over requests
}

// BlockTime is how long requests of one disk took in the last interval, if the
// domain's XML asks for that: timed_group of the block group.
type BlockTime struct {
	Device             string
	Interval           uint64 // seconds
	Read, Write, Flush Spread
	// How many requests were on their way on average, in billionths.
	ReadDepth, WriteDepth Num
}

// Spread is the distribution of a duration, in nanoseconds.
type Spread struct {
	Minimum, Maximum, Average Num
}

// BlockBin is one bin of a disk's latency histogram, if the domain's XML asks
// for one: the requests that took at least Start nanoseconds, and less than
// the next bin's start.
type BlockBin struct {
	Device    string
	Operation string // read, write, flush or zone-append
	Start     uint64
	Count     Num
}

// IOThread is how an I/O thread polls, iothread.ID of libvirt's statistics.
type IOThread struct {
	ID                   uint32
	PollMaximum          Num // nanoseconds; 0 is no polling
	PollGrow, PollShrink Num // factors; 0 leaves it to QEMU
}

// KVMStat is a statistic that KVM keeps, under KVM's own name.
type KVMStat struct {
	VCPU  uint32 // of one of a virtual CPU
	Name  string
	Type  KVMType
	Value Num
}

// KVMType says what a [KVMStat] is.
type KVMType uint8

// The types of statistics.
const (
	KVMSum     KVMType = iota // counts up; in nanoseconds if the name ends in _ns
	KVMCurrent                // as it is now
	KVMPeak                   // as high as it was
)

// Perf is a counter of the processor or the kernel, if the domain's XML
// enables it. Name is libvirt's.
type Perf struct {
	Name  string
	Value Num
}

// Bandwidth is the memory traffic of some virtual CPUs through one memory
// controller, if the domain's XML monitors it.
type Bandwidth struct {
	Monitor      string // libvirt's name for the virtual CPUs
	Node         uint32
	Local, Total Num // bytes
}

// Cache is the part of a last-level cache that some virtual CPUs fill, if the
// domain's XML monitors it.
type Cache struct {
	Monitor string
	Bank    uint32
	Bytes   Num
}

// DirtyRate is the last measurement of how fast the guest writes to memory,
// which somebody else has started.
type DirtyRate struct {
	State  DirtyRateState
	Period Num // seconds
	Rate   Num // bytes per second
}

// DirtyRateState is libvirt's virDomainDirtyRateStatus; empty is unknown.
type DirtyRateState string

// The states of a measurement.
const (
	DirtyRateUnstarted DirtyRateState = "unstarted"
	DirtyRateMeasuring DirtyRateState = "measuring"
	DirtyRateMeasured  DirtyRateState = "measured"
)

// Job is a long job of libvirt's on a machine, such as a migration, while it
// lasts. Durations are in nanoseconds.
type Job struct {
	Kind                     string // in libvirt's words; empty when there is none
	Elapsed, Downtime, Setup Num    // Downtime is what is expected until it is over
	Memory, Disk             Progress
	MemoryDirtied            Num // bytes per second that the guest writes to
	Iteration                Num // pass over the guest's memory
	PostcopyRequests         Num
	Throttle                 Num // percent of its time that auto-converge takes from the guest
	VFIO                     Num // bytes of devices' state
}

// Progress is how much of something was transferred, in bytes, and how fast.
type Progress struct {
	Total, Processed, Remaining Num
	Rate                        Num // bytes per second
}
