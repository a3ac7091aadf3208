package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// wholeProcess has a value for every family of the kernel class, but no
// virtual function.
func wholeProcess(num func() qemu.Num, cpus int) *qemu.Process {
	usage := func() qemu.Usage {
		system := qemu.Some(num().V >> 32)
		return qemu.Usage{CPU: qemu.Some(num().V>>16 + system.V), System: system, Delay: num(), Voluntary: num(), Involuntary: num()}
	}
	pressure := func() qemu.Pressure { return qemu.Pressure{Some: num(), Full: num()} }
	p := &qemu.Process{
		PID: 42, Start: time.Unix(1_700_000_000, 250_000_000), Resident: num(), RunQueueDelay: *histogramOf(0),
		Memory:      qemu.ProcessMemory{Anonymous: num(), File: num(), Shared: num(), Huge: num(), Swap: num(), Overhead: num()},
		MinorFaults: num(), MajorFaults: num(),
		IO:        qemu.ProcessIO{ReadBytes: num(), WriteBytes: num(), CancelledWrites: num(), ReadChars: num(), WriteChars: num(), ReadCalls: num(), WriteCalls: num()},
		IOThreads: []qemu.NamedThread{{Name: "iothread1", Usage: usage()}},
		Cgroup: qemu.Cgroup{
			Periods: num(), Throttled: num(), ThrottledTime: num(), CPULimit: qemu.Some(1_500_000_000),
			Memory: num(), MemoryLimit: num(), MemoryHeadroom: num(),
			Events:      qemu.MemoryEvents{High: num(), Max: num(), OOM: num(), OOMKill: num()},
			CPUPressure: pressure(), MemoryPressure: pressure(), IOPressure: pressure(),
		},
	}
	for role := range p.Threads {
		p.Threads[role] = usage()
	}
	other := &p.Threads[qemu.RoleOther]
	other.Delay, other.Voluntary, other.Involuntary = qemu.Num{}, qemu.Num{}, qemu.Num{}
	for i := range cpus {
		p.VCPUs = append(p.VCPUs, qemu.VCPUThread{Index: uint32(i), Usage: usage()})
	}
	return p
}

// wholeVF has a value for every family of a virtual function.
func wholeVF(address string, index int) qemu.VF {
	some := func(n int) qemu.Num { return qemu.Some(uint64(100*index + n)) }
	return qemu.VF{Address: address, PF: "eth\"0", Index: index, VFCounters: qemu.VFCounters{
		Receive:   qemu.Traffic{Bytes: some(1), Packets: some(2), Drops: some(3)},
		Transmit:  qemu.Traffic{Bytes: some(4), Packets: some(5), Drops: some(6)},
		Broadcast: some(7), Multicast: some(8),
	}}
}

// TestTheKernelClassIsSmall holds the standard groups against what the class
// may cost a machine with two virtual CPUs. Its virtual CPUs and taps have no
// series of their own: they complete those of libvirt.
func TestTheKernelClassIsSmall(t *testing.T) {
	const most = 45
	var w writer
	labelAll(&w, []qemu.VM{wholeVM("web", 2, 1, 2)}, labelVM)
	vm := []qemu.VM{wholeVM("web", 2, 1, 2)}
	for _, group := range vmGroups {
		if group.standard && group.families[0].class == fromKernel {
			writeLabelled(&w, group.families, vm)
		}
	}
	if w.series < 30 || w.series > most {
		t.Errorf("%d series, want at most %d:\n%s", w.series, most, w.buf)
	}
	if page := string(w.buf); strings.Contains(page, "context_switches") {
		t.Error("what costs more is standard")
	}
}
