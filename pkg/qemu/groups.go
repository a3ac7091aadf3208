package qemu

import "github.com/digitalocean/go-libvirt"

// groups are the statistics that can be switched on and off, by the name that
// [Options.Groups] knows them by. A group of the light class costs a QEMU
// nothing. One of the monitor class costs it a QMP command or more; libvirt
// asks for it while it holds the machine's job lock.
var groups = [...]struct {
	name     string
	bits     libvirt.DomainStatsTypes
	class    Class
	standard bool
}{
	{"state", libvirt.DomainStatsState, Light, true},
	{"network", libvirt.DomainStatsInterface, Light, true},
	{"perf", libvirt.DomainStatsPerf, Light, true},        // tells what the domain's XML enables
	{"bandwidth", libvirt.DomainStatsMemory, Light, true}, // the same
	{"cpu", libvirt.DomainStatsCPUTotal, Monitor, true},
	{"vcpu", libvirt.DomainStatsVCPU, Monitor, true},
	{"memory", libvirt.DomainStatsBalloon, Monitor, true},
	{"block", libvirt.DomainStatsBlock, Monitor, true},
	{"iothread", libvirt.DomainStatsIothread, Monitor, true},
	{"kvm", libvirt.DomainStatsVm, Monitor, true},
	{"dirtyrate", libvirt.DomainStatsDirtyrate, Monitor, false},
	{jobGroup, 0, Monitor, true}, // asked for while there is a job, in a call of its own
}

const jobGroup = "job"

// seldom are the groups that most machines tell nothing of.
const seldom = libvirt.DomainStatsIothread | libvirt.DomainStatsVm | libvirt.DomainStatsDirtyrate

// bitsOf returns the groups of a class that are switched on.
func bitsOf(class Class, switches map[string]bool) (bits libvirt.DomainStatsTypes) {
	for _, g := range groups {
		on, set := switches[g.name]
		if g.class == class && (on || !set && g.standard) {
			bits |= g.bits
		}
	}
	return bits
}

// standardKVMStats are statistics of KVM that are worth their series on any
// machine: what made a virtual CPU leave the guest, and what backs its memory.
// Names that a host's KVM does not know cost nothing.
var standardKVMStats = [...]string{
	"exits", "io_exits", "mmio_exits", "halt_exits", "irq_exits", // x86
	"mmio_exit_user", "mmio_exit_kernel", "wfi_exit_stat", // arm64
	"pages_4k", "pages_2m", "pages_1g", "nx_lpage_splits", "remote_tlb_flush", // of the whole machine
}

// internTable makes a set of names whose strings serve wherever they come up.
func internTable(names []string) map[string]string {
	table := make(map[string]string, len(names))
	for _, name := range names {
		table[name] = name
	}
	return table
}
