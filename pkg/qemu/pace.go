package qemu

import (
	"slices"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// paced are the groups of the monitor class. A machine is asked for each of
// them at a pace of its own: a QMP command costs more than all else that a
// scrape does, and most of what QEMU tells has not changed since the last time.
var paced = [...]libvirt.DomainStatsTypes{
	libvirt.DomainStatsCPUTotal, libvirt.DomainStatsVCPU, libvirt.DomainStatsBalloon, libvirt.DomainStatsBlock,
	libvirt.DomainStatsIothread, libvirt.DomainStatsVm, libvirt.DomainStatsDirtyrate,
}

// proofs are the groups that show whether libvirt had the machine's lock.
const proofs = libvirt.DomainStatsBalloon | libvirt.DomainStatsBlock

// turn is when a machine was asked for a group last.
type turn struct {
	at   time.Time     // zero: never, or what it told is forgotten
	rest time.Duration // from then on, unless there are signs of a change
	saw  signs
}

// signs tell of a change without asking QEMU. They are compared only.
type signs struct {
	running bool   // the kernel class knows the machine's process
	storage uint64 // bytes that the process read and wrote
	vcpus   int    // threads of virtual CPUs
	events  uint64 // that told of a change
	balloon uint64 // events of the balloon
}

// of reports whether there are signs that what a group tells has changed.
func (now signs) of(group libvirt.DomainStatsTypes, before signs) bool {
	if now.events != before.events {
		return true
	}
	switch group {
	case libvirt.DomainStatsBlock:
		return now.storage != before.storage
	case libvirt.DomainStatsBalloon:
		return now.balloon != before.balloon
	case libvirt.DomainStatsCPUTotal, libvirt.DomainStatsVCPU:
		return !now.running || !before.running || now.vcpus != before.vcpus
	}
	return false
}

// never is the rest of what tells nothing that nobody else tells, or of what
// events tell. It ends with the next sign of a change.
const never = 5 * time.Minute

// soon is the least rest of all: scrapers that come one after the other share
// a reading, and so do those that come too often.
func (m *monitor) soon() time.Duration { return m.maxAge / 6 }

// later is the rest of what may change, but has not or matters little.
func (m *monitor) later() time.Duration { return m.maxAge * 5 / 12 }

// old is the age of numbers that are served only if no newer ones can be had
// within the budget. A scraper that comes once in maxAge would otherwise be told
// sometimes what is, and sometimes what was the last time.
func (m *monitor) old() time.Duration { return m.maxAge * 5 / 6 }

// wanted returns the groups that a machine is to be asked for now.
func (m *monitor) wanted(g *guest, now time.Time) (bits libvirt.DomainStatsTypes) {
	for i, group := range paced {
		t := &g.turns[i]
		rest := t.rest
		if g.signs.of(group, t.saw) {
			rest = min(rest, m.soon())
		}
		if m.groups&group != 0 && (t.at.IsZero() || now.Sub(t.at) >= rest) {
			bits |= group
		}
	}
	job := g.job != "" || len(g.last.vms) > 0 && g.last.vms[0].Job.Kind != ""
	if job || bits != 0 && bits&proofs == 0 {
		bits |= m.groups & libvirt.DomainStatsBlock
	}
	if job && bits == 0 {
		bits = m.groups
	}
	return bits
}

// took notes when a machine has told some groups, and takes over the others
// from the reading before.
func (m *monitor) took(g *guest, asked libvirt.DomainStatsTypes, saw signs, now time.Time) {
	var old *VM
	if len(g.last.vms) > 0 {
		old = &g.last.vms[0]
	}
	for i, group := range paced {
		if asked&group != 0 {
			g.turns[i] = turn{at: now, rest: m.rest(g, group, old), saw: saw}
		}
	}
	if old != nil {
		g.spare.vms[0].carry(old, m.groups&^asked)
	}
	g.health.LastSuccess = g.oldest(now)
}

// rest judges by what a machine has just told of a group, and before, if it has.
func (m *monitor) rest(g *guest, group libvirt.DomainStatsTypes, before *VM) time.Duration {
	vm := &g.spare.vms[0]
	rest, tells := never, false
	switch group {
	case libvirt.DomainStatsBlock:
		rest, tells = m.later(), g.ref.number != inactive && !stoodStill(vm, before)
	case libvirt.DomainStatsBalloon:
		memory := &vm.Memory
		tells = !g.counted || memory.LastUpdate.Set || memory.Available.Set || memory.Unused.Set || memory.Usable.Set
		if !g.silentBalloon {
			rest = m.later()
		}
	case libvirt.DomainStatsDirtyrate:
		tells = vm.DirtyRate.State != "" && vm.DirtyRate.State != DirtyRateUnstarted
	case libvirt.DomainStatsCPUTotal:
		tells = !g.counted
		if vm.CPU.HaltPollSuccess.V+vm.CPU.HaltPollFailure.V > 0 || len(vm.Caches) > 0 {
			rest = m.later()
		}
	case libvirt.DomainStatsVCPU:
		tells = !g.counted
		if len(vm.VCPUKVM) > 0 || slices.ContainsFunc(vm.VCPUs, func(cpu VCPU) bool { return cpu.Wait.V > 0 || cpu.Halted.Set }) {
			rest = m.later()
		}
	case libvirt.DomainStatsIothread:
		if len(vm.IOThreads) > 0 {
			rest = m.later()
		}
	case libvirt.DomainStatsVm:
		if len(vm.KVM) > 0 {
			rest = m.later()
		}
	}
	if tells {
		rest = m.soon()
	}
	if m.groups&libvirt.DomainStatsBlock == 0 {
		rest = min(rest, m.later()) // or nothing would show that QEMU answers
	}
	return rest
}

// stoodStill reports whether the disks of a machine tell the same as before.
func stoodStill(vm, before *VM) bool {
	return before != nil && slices.Equal(vm.Blocks, before.Blocks) && slices.Equal(vm.BlockTimes, before.BlockTimes)
}

// oldest returns when the oldest of the numbers was read that may have changed
// since.
func (g *guest) oldest(now time.Time) time.Time {
	oldest := now
	for i := range g.turns {
		if t := &g.turns[i]; t.rest < never && !t.at.IsZero() && t.at.Before(oldest) {
			oldest = t.at
		}
	}
	return oldest
}

// carry takes over what an earlier reading told of some groups. The memory of
// lists changes hands.
func (vm *VM) carry(old *VM, groups libvirt.DomainStatsTypes) {
	for _, group := range paced {
		switch groups & group {
		case libvirt.DomainStatsCPUTotal:
			vm.CPU = old.CPU
			vm.Caches, old.Caches = old.Caches, vm.Caches
		case libvirt.DomainStatsVCPU:
			vm.Current, vm.Maximum = old.Current, old.Maximum
			vm.VCPUs, old.VCPUs = old.VCPUs, vm.VCPUs
			vm.VCPUKVM, old.VCPUKVM = old.VCPUKVM, vm.VCPUKVM
		case libvirt.DomainStatsBalloon:
			vm.Memory = old.Memory
		case libvirt.DomainStatsBlock:
			vm.Blocks, old.Blocks = old.Blocks, vm.Blocks
			vm.BlockTimes, old.BlockTimes = old.BlockTimes, vm.BlockTimes
			vm.BlockBins, old.BlockBins = old.BlockBins, vm.BlockBins
		case libvirt.DomainStatsIothread:
			vm.IOThreads, old.IOThreads = old.IOThreads, vm.IOThreads
		case libvirt.DomainStatsVm:
			vm.KVM, old.KVM = old.KVM, vm.KVM
		case libvirt.DomainStatsDirtyrate:
			vm.DirtyRate = old.DirtyRate
		}
	}
}

// bridge completes the reading of a machine that is busy with something else:
// what QEMU would have told is the reading's before, while that is young.
func (m *monitor) bridge(g *guest, asked libvirt.DomainStatsTypes, now time.Time) {
	if len(g.last.vms) == 0 {
		return
	}
	vm, old, groups := &g.spare.vms[0], &g.last.vms[0], m.groups&^asked
	if now.Sub(g.health.LastSuccess) <= m.maxAge {
		groups |= asked & (seldom | proofs)
		if asked&libvirt.DomainStatsVCPU != 0 {
			vm.VCPUKVM, old.VCPUKVM = old.VCPUKVM, vm.VCPUKVM
		}
	}
	vm.carry(old, groups)
}

// forget drops a machine's numbers, not their memory.
func (g *guest) forget() {
	g.last.vms, g.last.unused = g.last.vms[:0], 0
	clear(g.turns[:])
}
