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

	State      State       // light
	Interfaces []Interface // light
	CPU        CPU         // monitor
	VCPUs      []VCPU      // monitor, ascending index
	Current    Num         // monitor: virtual CPUs that are on
	Maximum    Num         // monitor: virtual CPUs that could be
	Memory     Memory      // monitor
	Blocks     []Block     // monitor
	Process    *Process    // kernel; nil when no QEMU process runs

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
	Allocation         Num // bytes written to the image, at the highest
	Physical           Num // bytes of the image's container
}

// IO is one kind of request of a disk. Flushes have no bytes.
type IO struct {
	Requests, Bytes Num
	Time            Num // nanoseconds, summed over requests
}
