package network

import (
	"fmt"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// large is a host of 64 cards with 128 VFs each, and a policy about all of it.
func large(tb testing.TB) ([]v1alpha1.HostNetwork, hostnet.State, sriov.State) {
	tb.Helper()
	var text strings.Builder
	text.WriteString("apiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: large}\nspec:\n  disruption: Allow\n  interfaces:\n")
	var links hostnet.State
	vfs := sriov.State{Drivers: []string{"vfio-pci", "ice", "iavf"}}
	for i := range 64 {
		address := fmt.Sprintf("0000:%02x:00.0", i)
		fmt.Fprintf(&text, "  - {name: n%d, match: {pciAddress: '%s'}, mtu: 9000, vlans: [{id: 7, name: v%d}], sriov: {numVFs: 128, pools: [{name: fast, vfs: 0-63, driver: vfio-pci, trust: true}, {name: slow, vfs: 64-127, vlan: 100}]}}\n", i, address, i)
		links.Links = append(links.Links, hostnet.Link{Index: i + 1, Name: fmt.Sprintf("eth%d", i), MTU: 1500, PCI: &hostnet.PCI{Address: address, Driver: "ice"}})
		pf := sriov.PFState{PF: sriov.PF{Address: address, Driver: "ice", TotalVFs: 128, NumVFs: 128, Netdevs: []string{fmt.Sprintf("eth%d", i)}}, Autoprobe: true}
		for v := range 128 {
			group := i*128 + v
			pf.VFs = append(pf.VFs, sriov.VFState{VF: sriov.VF{
				Index: v, Address: fmt.Sprintf("0000:%02x:%02x.%d", i, 1+v/8, v%8), Driver: "iavf", IOMMUGroup: &group, Netdevs: []string{fmt.Sprintf("eth%dv%d", i, v)},
			}})
		}
		vfs.PFs = append(vfs.PFs, pf)
	}
	all, err := config.ParsePolicies([]byte(text.String()))
	if err != nil {
		tb.Fatal(err)
	}
	return all, links, vfs
}

func planLarge(all []v1alpha1.HostNetwork, links hostnet.State, vfs sriov.State) reconcile.Plan {
	spec, _ := hostnet.Resolve(all, &links)
	specs, _ := cardsOf(spec.Cards, all)
	plan := reconcile.Join(hostnet.Plan(spec, links, reconcile.State{}), sriov.Plan(specs, vfs, nil)).Restrict(hostnet.Disruptive(all))
	plan.Hash()
	return plan
}

// BenchmarkPlan plans for 8192 VFs, from what was read to the hash.
func BenchmarkPlan(b *testing.B) {
	all, links, vfs := large(b)
	steps := 0
	for b.Loop() {
		steps = len(planLarge(all, links, vfs).Steps)
	}
	b.ReportMetric(float64(steps), "steps")
}

func TestLargePlanIsWhole(t *testing.T) {
	plan := planLarge(large(t))
	if len(plan.Steps) < 8192 || len(plan.Refusals) > 0 {
		t.Errorf("%d steps, %v", len(plan.Steps), plan.Refusals[:min(3, len(plan.Refusals))])
	}
}
