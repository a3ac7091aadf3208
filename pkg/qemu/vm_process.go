package qemu

import "time"

// Process is the QEMU process of a machine, from /proc.
type Process struct {
	PID      int
	Start    time.Time
	CPU      [len(Roles)]Num // by role, in ticks of 10 ms
	Resident Num             // bytes, VmRSS
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
