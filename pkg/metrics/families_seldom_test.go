package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// seldomVM has what only some machines tell.
func seldomVM(name string) qemu.VM {
	some := qemu.Some
	vm := qemu.VM{
		Name: name, Source: "qemu:///system", State: qemu.StatePaused, StateReason: "io-error",
		Monitor:    qemu.Health{Reason: qemu.CallTimeout, LastSuccess: time.Unix(1_700_000_000, 5e8), Age: some(1_500_000_000), Abandoned: 2},
		Caches:     []qemu.Cache{{Monitor: "vcpus_0-3", Bank: 1, Bytes: some(4096)}},
		Blocks:     []qemu.Block{{Device: "vda", Threshold: some(1 << 30)}},
		BlockTimes: []qemu.BlockTime{{Device: "vda", Interval: 60, Read: qemu.Spread{Minimum: some(1000), Maximum: some(2_000_000), Average: some(0)}, ReadDepth: some(250_000_000)}},
		BlockBins: []qemu.BlockBin{
			{Device: "vda", Operation: "read", Count: some(1)},
			{Device: "vda", Operation: "read", Start: 10_000, Count: some(2)},
			{Device: "vda", Operation: "read", Start: 1_000_000_000, Count: some(4)},
			{Device: "vda", Operation: "flush", Count: some(8)},
			{Device: "vdb", Operation: "read", Count: some(16)},
			{Device: "vdb", Operation: "read", Start: 500, Count: some(32)},
		},
		IOThreads: []qemu.IOThread{{ID: 1, PollMaximum: some(32768), PollGrow: some(0), PollShrink: some(2)}},
		KVM: []qemu.KVMStat{
			{Name: "remote_tlb_flush", Value: some(7)}, {Name: "pages_4k", Type: qemu.KVMCurrent, Value: some(9)}, {Name: "max_mmu_rmap_size", Type: qemu.KVMPeak, Value: some(3)},
		},
		VCPUKVM: []qemu.KVMStat{
			{Name: "exits", Value: some(100)},
			{Name: "halt_wait_ns", Value: some(2_500_000_000)},
			{Name: "guest_mode", Type: qemu.KVMCurrent, Value: some(0)},
			{VCPU: 1, Name: "exits", Value: some(101)},
		},
		Perf:      []qemu.Perf{{Name: "instructions", Value: some(5)}, {Name: "task_clock", Value: some(1_000_000)}, {Name: "cmt", Value: some(1)}},
		Bandwidth: []qemu.Bandwidth{{Monitor: "vcpus_0", Node: 1, Local: some(10), Total: some(20)}},
		Job: qemu.Job{
			Kind: "migration out", Elapsed: some(1_500_000_000), Downtime: some(20_000_000), Setup: some(3_000_000), Memory: qemu.Progress{Total: some(100), Processed: some(120), Remaining: some(40), Rate: some(7)},
			Disk: qemu.Progress{Total: some(8)}, MemoryDirtied: some(8192), Iteration: some(4), PostcopyRequests: some(0), Throttle: some(30), VFIO: some(5),
		},
		DirtyRate: qemu.DirtyRate{State: qemu.DirtyRateMeasured, Rate: some(3 << 20)},
	}
	return vm
}

func TestPageOfWhatFewMachinesTell(t *testing.T) {
	page := encode(seldomVM("a"), seldomVM("b"))
	parse(t, page)
	var lines []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "# HELP") {
			lines = append(lines, line)
		}
	}
	golden(t, "testdata/seldom.prom", strings.Join(lines, ""))
}
