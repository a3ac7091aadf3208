package network

import (
	"fmt"
	"slices"
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
			}, Attributes: asMade(i, v)})
		}
		vfs.PFs = append(vfs.PFs, pf)
	}
	all, err := config.ParsePolicies([]byte(text.String()))
	if err != nil {
		tb.Fatal(err)
	}
	return all, links, vfs
}

// asMade is what a driver gives to a new VF.
func asMade(pf, vf int) sriov.Attributes {
	return sriov.Attributes{
		MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", pf, vf), VLAN: new(0), QoS: new(0), MinTxRate: new(0), MaxTxRate: new(0),
		SpoofCheck: new(true), Trust: new(false), LinkState: "auto",
	}
}

// applyLarge makes that host what it is after its plan, with what was there before.
func applyLarge(links *hostnet.State, vfs *sriov.State, plan reconcile.Plan) reconcile.State {
	for i := range 64 {
		name := fmt.Sprintf("eth%d", i)
		link, _ := links.Link(name)
		link.MTU, link.Up, link.Altnames = 9000, true, []string{fmt.Sprintf("n%d", i)}
		links.Links = append(links.Links, hostnet.Link{
			Index: 100 + i, Name: fmt.Sprintf("v%d", i), Kind: hostnet.KindVLAN, Parent: name, VLANID: 7, Protocol: "802.1Q", MTU: 9000, Up: true,
		})
		for v := range vfs.PFs[i].VFs {
			vf := &vfs.PFs[i].VFs[v]
			if v < 64 {
				vf.Driver, vf.Netdevs, vf.Attributes.Trust = "vfio-pci", nil, new(true)
			} else {
				vf.Attributes.VLAN = new(100)
			}
		}
	}
	return reconcile.State{Originals: plan.Steps}
}

func planLarge(all []v1alpha1.HostNetwork, links hostnet.State, vfs sriov.State, ours reconcile.State) reconcile.Plan {
	spec, _ := hostnet.Resolve(all, &links)
	specs, _ := cardsOf(spec.Cards, all)
	plan := reconcile.Join(hostnet.Plan(spec, links, ours), sriov.Plan(specs, vfs, ours.Originals)).Restrict(hostnet.Disruptive(all))
	plan.Hash()
	return plan
}

// BenchmarkPlan plans for 8192 VFs, from what was read to the hash: for a host
// that is as it came, for one that is as the policy wants it, and back from
// there.
func BenchmarkPlan(b *testing.B) {
	all, links, vfs := large(b)
	fresh := planLarge(all, links, vfs, reconcile.State{})
	done, made := links, vfs
	done.Links, made.PFs = slices.Clone(links.Links), slices.Clone(vfs.PFs)
	for i := range made.PFs {
		made.PFs[i].VFs = slices.Clone(made.PFs[i].VFs)
	}
	ours := applyLarge(&done, &made, fresh)
	for name, plan := range map[string]func() reconcile.Plan{
		"fresh":     func() reconcile.Plan { return planLarge(all, links, vfs, reconcile.State{}) },
		"converged": func() reconcile.Plan { return planLarge(all, done, made, ours) },
		"restore":   func() reconcile.Plan { return planLarge(nil, done, made, ours) },
	} {
		b.Run(name, func(b *testing.B) {
			steps := 0
			for b.Loop() {
				steps = len(plan().Steps)
			}
			b.ReportMetric(float64(steps), "steps")
		})
	}
}

func TestLargePlanIsWhole(t *testing.T) {
	all, links, vfs := large(t)
	plan := planLarge(all, links, vfs, reconcile.State{})
	if len(plan.Steps) < 8192 || len(plan.Refusals) > 0 {
		t.Errorf("%d steps, %v", len(plan.Steps), plan.Refusals[:min(3, len(plan.Refusals))])
	}
	ours := applyLarge(&links, &vfs, plan)
	if again := planLarge(all, links, vfs, ours); !again.Converged() {
		t.Errorf("after it: %d steps, %v", len(again.Steps), again.Steps[:min(3, len(again.Steps))])
	}
	if back := planLarge(nil, links, vfs, ours); len(back.Steps) < 8192 {
		t.Errorf("back: %d steps", len(back.Steps))
	}
}
