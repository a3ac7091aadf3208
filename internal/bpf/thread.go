package bpf

import (
	"encoding/binary"
)

// Thread is what the kernel keeps of a thread of a tracked process (struct
// task_struct in include/linux/sched.h).
type Thread struct {
	PID, TID    int
	Start       uint64 // nanoseconds since boot
	Delay       uint64 // nanoseconds that it could run but had no CPU
	Waits       uint64 // how often it got a CPU; 0: it never ran, or the kernel does not count
	Voluntary   uint64 // context switches because it waited
	Involuntary uint64 // context switches because another took the CPU
	// Behind says that it runs on a CPU without a tick: what it has used lately
	// is not in Used.
	Behind bool
	// Groups is another number when the thread is in other control groups.
	Groups uint64
	Name   [16]byte // up to a NUL byte
	Used   Account

	Group *Group // its process, if it is the main thread; else nil
}

// Account is what a thread used, or those threads of a process that have ended.
type Account struct {
	Runtime uint64 // nanoseconds on a CPU
	// User and System are nanoseconds by the ticks that found it there: their
	// ratio splits Runtime. ToldUser and ToldSystem are the split that was told
	// last, to whoever read /proc.
	User, System         uint64
	ToldUser, ToldSystem uint64

	MinorFaults, MajorFaults uint64

	ReadChars, WriteChars uint64 // bytes by system calls
	ReadCalls, WriteCalls uint64
	ReadBytes, WriteBytes uint64 // bytes from and to storage
	CancelledWrites       uint64 // bytes that never reached storage
}

// Group is what the kernel keeps of all threads of a process together (struct
// signal_struct in include/linux/sched/signal.h, struct mm_struct).
type Group struct {
	Now     uint64 // when it was read, nanoseconds since boot
	Threads uint64 // how many there are
	// Torn says that a thread ended in this moment, or that the process does:
	// what is told of it does not fit together.
	Torn bool
	// Pages are resident ones of files, anonymous ones, those in swap space, and
	// resident shared ones; HugePages are pages too, of the usual size. The
	// kernel may know of some pages more or less for each CPU.
	Pages     [4]int64
	HugePages uint64
	// Files is another number when a file was opened, closed or put in the place
	// of another; 0: there are more than 256 descriptors.
	Files uint64
	Ended Account // of threads that have ended
}

// Sizes of the structures in vm_threads.c.
const (
	accountSize = 8 * 14
	threadSize  = 8*10 + accountSize
	groupSize   = 8*9 + accountSize
)

// next reads the record that data begins with into t and g, and returns its
// size; 0 when data holds no more than a part of one.
func (t *Thread) next(data []byte, g *Group) int {
	if len(data) < threadSize {
		return 0
	}
	t.read((*[threadSize]byte)(data))
	if t.TID != t.PID {
		return threadSize
	}
	data = data[threadSize:]
	if len(data) < groupSize {
		return 0
	}
	g.read((*[groupSize]byte)(data))
	t.Group = g
	return threadSize + groupSize
}

// read reads struct thread of vm_threads.c.
func (t *Thread) read(data *[threadSize]byte) {
	order := binary.NativeEndian
	*t = Thread{
		PID: int(order.Uint32(data[0:])), TID: int(order.Uint32(data[4:])), Start: order.Uint64(data[8:]),
		Delay: order.Uint64(data[16:]), Waits: order.Uint64(data[24:]),
		Voluntary: order.Uint64(data[32:]), Involuntary: order.Uint64(data[40:]),
		Behind: order.Uint64(data[48:]) != 0, Groups: order.Uint64(data[56:]), Name: [16]byte(data[64:]),
	}
	t.Used.read((*[accountSize]byte)(data[80:]))
}

// read reads struct process of vm_threads.c.
func (g *Group) read(data *[groupSize]byte) {
	order := binary.NativeEndian
	g.Now, g.Threads, g.Torn = order.Uint64(data[0:]), order.Uint64(data[8:]), order.Uint64(data[16:]) != 0
	for i := range g.Pages {
		g.Pages[i] = int64(order.Uint64(data[24+8*i:]))
	}
	g.HugePages, g.Files = order.Uint64(data[56:]), order.Uint64(data[64:])
	g.Ended.read((*[accountSize]byte)(data[72:]))
}

// read reads struct account of vm_threads.c.
func (a *Account) read(data *[accountSize]byte) {
	for i, field := range [...]*uint64{
		&a.Runtime, &a.User, &a.System, &a.ToldUser, &a.ToldSystem, &a.MinorFaults, &a.MajorFaults,
		&a.ReadChars, &a.WriteChars, &a.ReadCalls, &a.WriteCalls, &a.ReadBytes, &a.WriteBytes, &a.CancelledWrites,
	} {
		*field = binary.NativeEndian.Uint64(data[8*i:])
	}
}
