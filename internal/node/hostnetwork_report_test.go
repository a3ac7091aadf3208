package node

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
)

// storage is a policy of one interface, for the nodes of rack a.
func storage(change func(*v1alpha1.HostNetwork)) v1alpha1.HostNetwork {
	policy := v1alpha1.HostNetwork{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindHostNetwork},
		ObjectMeta: metav1.ObjectMeta{Name: "storage", Generation: 2},
		Spec: v1alpha1.HostNetworkSpec{
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}},
			Interfaces:   []v1alpha1.Interface{{Name: "storage", Match: &v1alpha1.Match{Name: "nic0"}, MTU: 9000}},
		},
	}
	if change != nil {
		change(&policy)
	}
	policy.Default()
	return policy
}

// looked is a look at a host that is as storage wants it.
func looked(change func(*network.Look)) *network.Look {
	policy := storage(nil)
	look := &network.Look{View: network.View{
		Policies: []v1alpha1.HostNetwork{policy},
		Cards:    []hostnet.Card{{Policy: "storage", Interface: policy.Spec.Interfaces[0], Link: "nic0", PCIAddress: "0000:01:00.0"}},
	}}
	if change != nil {
		change(look)
	}
	return look
}

func TestNetworkReports(t *testing.T) {
	mtu := reconcile.Step{Kind: "link/mtu", Target: "nic0", Policy: "storage", Was: reconcile.Value(1500), Want: reconcile.Value(9000), Disruption: reconcile.LinkFlap, Text: "set MTU"}
	back := mtu.Reverse()
	back.Policy = ""
	hash, backHash := reconcile.Plan{Steps: []reconcile.Step{mtu}}.Hash(), reconcile.Plan{Steps: []reconcile.Step{back}}.Hash()
	plan := func(l *network.Look) { l.View.Plan.Steps = []reconcile.Step{mtu} }
	refuse := func(guard, policy string) func(*network.Look) {
		return func(l *network.Look) {
			plan(l)
			l.View.Plan.Refusals = []reconcile.Refusal{{Guard: guard, Target: "nic0", Policy: policy, Message: "no"}}
		}
	}
	unwanted := func(l *network.Look) {
		l.View.Policies, l.View.Cards = nil, nil
		l.View.Plan.Steps = []reconcile.Step{back}
		l.View.Ours = []reconcile.Step{mtu}
	}
	gone := func(p *v1alpha1.HostNetwork) { p.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time} }
	allow := func(p *v1alpha1.HostNetwork) { p.Spec.Disruption = v1alpha1.DisruptionAllow }
	elsewhere := func(p *v1alpha1.HostNetwork) { p.Spec.NodeSelector.MatchLabels["rack"] = "b" }
	for name, test := range map[string]struct {
		policy func(*v1alpha1.HostNetwork)
		look   func(*network.Look)
		state  string // "": no report
		plan   string
	}{
		"as wanted":                     {nil, nil, "Converged", ""},
		"not looked at yet":             {func(p *v1alpha1.HostNetwork) { p.Generation = 3 }, nil, "Pending", ""},
		"for other nodes":               {elsewhere, func(l *network.Look) { l.View.Policies = nil }, "", ""},
		"makes no sense":                {func(p *v1alpha1.HostNetwork) { p.Spec.Interfaces[0].MTU = 1 }, nil, "Refused", ""},
		"cannot be looked at":           {nil, func(l *network.Look) { l.Err = errors.New("no") }, "Failed", ""},
		"harmless, about to be applied": {nil, plan, "Pending", hash},
		"changed by somebody":           {nil, func(l *network.Look) { plan(l); l.Held = true }, "Drifted", hash},
		"disruptive, allowed by nobody": {nil, refuse("disruption", "storage"), "AwaitingApproval", hash},
		"disruptive, allowed":           {allow, refuse("disruption", "storage"), "AwaitingTurn", hash},
		"disruptive, in vain":           {allow, func(l *network.Look) { refuse("disruption", "storage")(l); l.Cause = errors.New("guard probe: no") }, "Refused", hash},
		"disruptive, another is refused": {allow, func(l *network.Look) {
			refuse("disruption", "storage")(l)
			l.View.Plan.Refusals = append(l.View.Plan.Refusals, reconcile.Refusal{Guard: "uplink", Policy: "other"})
		}, "Pending", hash},
		"another disrupts":                   {allow, refuse("disruption", "other"), "Pending", hash},
		"disruptive, this plan approved":     {func(p *v1alpha1.HostNetwork) { p.Spec.ApprovedPlans = []string{hash} }, refuse("disruption", "storage"), "AwaitingTurn", hash},
		"disruptive, another plan approved":  {func(p *v1alpha1.HostNetwork) { p.Spec.ApprovedPlans = []string{backHash} }, refuse("disruption", "storage"), "AwaitingApproval", hash},
		"forbidden by a guard":               {allow, refuse("uplink", "storage"), "Refused", hash},
		"in conflict":                        {allow, refuse("conflict", "storage"), "Conflict", hash},
		"another policy is refused":          {allow, refuse("uplink", "other"), "Pending", hash},
		"another policy is refused, nothing": {allow, func(l *network.Look) { refuse("uplink", "other")(l); l.View.Plan.Steps = nil }, "Converged", ""},
		"a target of the probes is silent":   {nil, func(l *network.Look) { plan(l); l.Cause = errors.New("guard probe: no") }, "Refused", hash},
		"undone": {nil, func(l *network.Look) {
			plan(l)
			l.Last = reconcile.Outcome{Result: reconcile.Reverted, Request: reconcile.Request{Plan: hash}, Cause: "no"}
		}, "RolledBack", hash},
		"undone, and now there is another plan": {nil, func(l *network.Look) {
			plan(l)
			l.Last = reconcile.Outcome{Result: reconcile.Reverted, Request: reconcile.Request{Plan: "other"}}
		}, "Pending", hash},
		"being deleted, not looked at yet":   {gone, nil, "Pending", ""},
		"being deleted, to be restored":      {gone, unwanted, "Pending", backHash},
		"being deleted, in use":              {gone, func(l *network.Look) { unwanted(l); l.Cause = errors.New("guard in-use: no") }, "Refused", backHash},
		"being deleted, restored":            {gone, func(l *network.Look) { unwanted(l); l.View.Plan.Steps = nil }, "Restored", ""},
		"selects the node no more":           {elsewhere, unwanted, "Pending", backHash},
		"selects the node no more, restored": {elsewhere, func(l *network.Look) { unwanted(l); l.View.Plan.Steps = nil }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			reports := networkReports([]v1alpha1.HostNetwork{storage(test.policy)}, map[string]string{"rack": "a"}, looked(test.look))
			switch {
			case test.state == "" && reports != nil && len(reports) == 0:
			case len(reports) != 1:
				t.Fatalf("got %+v", reports)
			case reports[0].State != test.state || reports[0].PlanHash != test.plan:
				t.Errorf("got %+v, want %s, plan %q", reports[0], test.state, test.plan)
			}
		})
	}
}

func TestInterfaceReports(t *testing.T) {
	policy := storage(func(p *v1alpha1.HostNetwork) {
		p.Spec.Interfaces[0].VLANs = []v1alpha1.VLAN{{Name: "v7", ID: 7}}
		p.Spec.Interfaces = append(p.Spec.Interfaces,
			v1alpha1.Interface{Name: "lost", Match: &v1alpha1.Match{Name: "nic9"}},
			v1alpha1.Interface{Name: "pair", Bond: &v1alpha1.Bond{Name: "bond1", Ports: []string{"lost"}}})
	})
	reports := networkReports([]v1alpha1.HostNetwork{policy}, map[string]string{"rack": "a"}, looked(func(l *network.Look) {
		l.View.Plan.Steps = []reconcile.Step{{Kind: "link/device", Target: "v7", Policy: "storage", Text: "make v7", Disruption: reconcile.None}}
		l.View.Plan.Refusals = []reconcile.Refusal{{Guard: "match", Target: "lost", Policy: "storage", Message: "no card"}}
	}))
	want := []v1alpha1.InterfaceReport{
		{Name: "storage", Link: "nic0", Message: "make v7"},
		{Name: "lost", Message: "guard match: lost: no card"},
		{Name: "pair", Link: "bond1", Ready: true},
	}
	if diff := cmp.Diff(want, reports[0].Interfaces); diff != "" {
		t.Error(diff)
	}
}

func TestPermit(t *testing.T) {
	h := &HostNetworks{node: "a"}
	turn := []v1alpha1.Turn{{Node: "b", Plan: "p", Generation: 2}, {Node: "a", Plan: "p", Generation: 2}}
	for name, test := range map[string]struct {
		disruption v1alpha1.DisruptionPolicy
		approved   []string
		turns      []v1alpha1.Turn
		plan       string
		restart    bool
		want       bool
	}{
		"allowed, its turn":                 {"Allow", nil, turn, "p", false, true},
		"approved, its turn":                {"None", []string{"p"}, turn, "p", false, true},
		"its turn, but nobody has allowed":  {"None", nil, turn, "p", false, false},
		"allowed, another's turn":           {"Allow", nil, turn[:1], "p", false, false},
		"its turn, with another plan":       {"Allow", nil, turn, "q", false, false},
		"its turn, for the policy before":   {"Allow", nil, []v1alpha1.Turn{{Node: "a", Plan: "p", Generation: 1}}, "p", false, false},
		"allowed, after a restart":          {"Allow", nil, nil, "p", true, true},
		"another approved, after a restart": {"None", []string{"q"}, nil, "p", true, false},
	} {
		policy := storage(func(p *v1alpha1.HostNetwork) {
			p.Spec.Disruption, p.Spec.ApprovedPlans, p.Status.Turns = test.disruption, test.approved, test.turns
		})
		if got := h.Permit(&policy, test.plan, test.restart); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
