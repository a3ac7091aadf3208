package telemetry

import (
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// kvmStats are some of all kinds: counts and times of virtual CPUs, and counts,
// levels and peaks of the whole machine.
var kvmStats = []string{
	"exits", "io_exits", "mmio_exits", "halt_exits", "insn_emulation", "halt_wait_ns", "halt_poll_fail_ns",
	"mmu_cache_miss", "remote_tlb_flush", "pages_4k", "max_mmu_rmap_size",
}

// TestKVMStatistics holds what KVM counts for real guests against virsh
// domstats, where there is a KVM to run them.
func TestKVMStatistics(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	host := libvirt.New(t, libvirt.Options{})
	domains := []libvirt.Domain{
		{Name: "emulated"},
		{Name: "busy", KVM: true, Workload: libvirt.Busy, VCPUs: 2},
		{Name: "chatty", KVM: true, Workload: libvirt.DiskAndNet, NICs: []libvirt.NIC{{}}},
	}
	must(t, host.StartDomain(t.Context(), domains[0]))
	if err := host.StartDomain(t.Context(), domains[1]); err != nil {
		t.Skip("needs KVM that runs QEMU's guests: ", err)
	}
	must(t, host.StartDomain(t.Context(), domains[2]))
	f, err := fleetOf(t.Context(), host, domains)
	must(t, err)
	agent := startAgent(t, "  kvmStats: ["+strings.Join(kvmStats, ", ")+"]\n", f.URI())
	for _, domain := range []string{"busy", "chatty"} {
		t.Run(domain, func(t *testing.T) {
			before, page, after := between(t, f, agent, domain)
			compared := 0
			for field := range before {
				if compareField(t, page, f.uuids[domain], field, before, after) && strings.HasSuffix(field, ".sum") {
					compared++
				}
			}
			if compared < 8 {
				t.Errorf("only %d statistics of KVM compared: %v", compared, before)
			}
			exits := page.Select("virtnode_vm_vcpu_kvm_events_total", "uuid", f.uuids[domain], "stat", "exits", "vcpu", "0")
			if len(exits) != 1 || exits[0].Value == 0 {
				t.Errorf("a guest that runs leaves it at times: %v", exits)
			}
		})
	}
	page := scrape(t, agent)
	if stats := page.Select("virtnode_vm_vcpu_kvm_events_total", "uuid", f.uuids["emulated"]); len(stats) > 0 {
		t.Errorf("KVM counts nothing for a machine without it: %v", stats)
	}
}
