package qemu

import "time"

// Process is the QEMU process of a machine as the kernel tells of it: /proc,
// its control groups, and the virtual functions that it holds. It needs no
// answer of QEMU or libvirt. Counters begin with the process and never go
// back, whatever threads come and go.
type Process struct {
	PID   int
	Start time.Time

	// Threads are what its threads used, by role. Those of [RoleOther] come and
	// go: of them only the CPU time is known, as what the process used and no
	// other role did.
	Threads   [len(Roles)]Usage
	VCPUs     []VCPUThread  // ascending index
	IOThreads []NamedThread // by name
	// RunQueueDelay is how long virtual CPUs waited for a physical one.
	RunQueueDelay Histogram

	Resident Num // bytes, VmRSS: the sum of Anonymous, File and Shared
	Memory   ProcessMemory
	// Page faults: minor ones needed no I/O of the host.
	MinorFaults, MajorFaults Num
	IO                       ProcessIO
	Cgroup                   Cgroup
	VFs                      []VF // by PCI address
}

// Usage is what a thread, or several, used.
type Usage struct {
	CPU         Num // nanoseconds, in user mode and in the host's kernel
	System      Num // the part of CPU in the kernel
	Delay       Num // nanoseconds runnable without a physical CPU
	Voluntary   Num // context switches because the thread waited
	Involuntary Num // context switches because another took the CPU
}

// User is the CPU time in user mode, in nanoseconds.
func (u *Usage) User() Num {
	return Num{V: u.CPU.V - min(u.System.V, u.CPU.V), Set: u.CPU.Set && u.System.Set}
}

// VCPUThread is the thread that runs a virtual CPU.
type VCPUThread struct {
	Index uint32
	Usage
}

// NamedThread is an I/O thread. The kernel cuts its name at 12 bytes.
type NamedThread struct {
	Name string
	Usage
}

// ProcessMemory is where the memory of a QEMU process is, in bytes. The RAM of
// the guest is Anonymous, unless the machine was told to share it (Shared) or
// to back it with huge pages (Huge); the rest is QEMU's own.
type ProcessMemory struct {
	Anonymous, File, Shared Num
	Huge                    Num // not part of the resident memory
	Swap                    Num // anonymous memory in the host's swap space
	// Overhead is what QEMU itself has allocated and is resident. It is known
	// only when the guest's RAM is not anonymous memory, as QEMU's own is.
	Overhead Num
}

// ProcessIO is what a process read and wrote.
type ProcessIO struct {
	ReadBytes, WriteBytes Num // bytes from and to storage
	CancelledWrites       Num // bytes that never reached storage
	ReadChars, WriteChars Num // bytes by system calls, from and to the page cache too
	ReadCalls, WriteCalls Num
}

// rise returns the values of now, but none that is less than it was before.
func (io *ProcessIO) rise(now ProcessIO) ProcessIO {
	return ProcessIO{
		ReadBytes: io.ReadBytes.rise(now.ReadBytes), WriteBytes: io.WriteBytes.rise(now.WriteBytes),
		CancelledWrites: io.CancelledWrites.rise(now.CancelledWrites),
		ReadChars:       io.ReadChars.rise(now.ReadChars), WriteChars: io.WriteChars.rise(now.WriteChars),
		ReadCalls: io.ReadCalls.rise(now.ReadCalls), WriteCalls: io.WriteCalls.rise(now.WriteCalls),
	}
}

// rise returns now, or what it was before if that is more. What is not known
// now stays unknown.
func (n *Num) rise(now Num) Num {
	if now.Set {
		*n = Some(max(n.V, now.V))
		return *n
	}
	return Num{}
}

// VF is a virtual function that a machine holds. Receive and transmit are the
// guest's.
type VF struct {
	Address string // PCI address of the function
	PF      string // network device of the physical function; empty when it has none
	Index   int    // of the function on its PF
	VFCounters
}

// VFReader reads what the kernel counts for the virtual functions of one
// physical function, a network device of the host, by index.
type VFReader interface {
	VFCounters(pf string) (map[int]VFCounters, error)
}

// VFCounters are what the driver of a physical function counts for one
// virtual function, as rtnetlink's IFLA_VF_STATS tells.
type VFCounters struct {
	Receive, Transmit    Traffic // without errors
	Broadcast, Multicast Num     // packets received
}

// Cgroup is a machine's own control groups: the topmost that holds nothing
// else, such as a pod or a libvirt scope, and those below it.
type Cgroup struct {
	// Of all its groups with a CPU quota: how many periods passed in which
	// threads wanted to run, in how many they were stopped, and for how long in
	// nanoseconds.
	Periods, Throttled, ThrottledTime Num
	CPULimit                          Num // the tightest quota, in billionths of a CPU; none is unknown

	Memory         Num // bytes in use in the topmost group
	MemoryLimit    Num // the tightest limit; none is unknown
	MemoryHeadroom Num // the least that is left below any limit

	Events MemoryEvents

	CPUPressure, MemoryPressure, IOPressure Pressure
}

// MemoryEvents is how often memory ran short in a control group
// (Documentation/admin-guide/cgroup-v2.rst, memory.events).
type MemoryEvents struct {
	High    Num // it was throttled and made to give memory back
	Max     Num // it was to go above its limit
	OOM     Num // it was to go above its limit and gave nothing back
	OOMKill Num // a process was killed for want of memory
}

// Pressure is the time that tasks of a group stood still for want of a
// resource, in nanoseconds (Documentation/accounting/psi.rst).
type Pressure struct {
	Some Num // at least one task
	Full Num // all tasks at once
}

// Role says what a thread does for its machine.
type Role uint8

// The roles. Other holds threads without a lasting role: workers that come
// and go, display threads, and all threads of a QEMU that does not name them.
const (
	RoleOther Role = iota
	RoleVCPU
	RoleEmulator
	RoleIOThread
	RoleVhost
)

// Roles are the names of the roles, by number.
var Roles = [...]string{
	RoleOther:    "other",
	RoleVCPU:     "vcpu",
	RoleEmulator: "emulator",
	RoleIOThread: "iothread",
	RoleVhost:    "vhost",
}
