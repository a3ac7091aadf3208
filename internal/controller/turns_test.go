package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// policyOf is a policy of generation 2, for every node.
func policyOf(name string, most int, turns ...v1alpha1.Turn) *v1alpha1.HostNetwork {
	policy := &v1alpha1.HostNetwork{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindHostNetwork},
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 2},
		Spec:       v1alpha1.HostNetworkSpec{MaxUnavailable: new(intstr.FromInt(most)), Disruption: v1alpha1.DisruptionAllow},
		Status:     v1alpha1.HostNetworkStatus{Turns: turns},
	}
	policy.Default()
	return policy
}

// share is the policy with a percentage instead of a number.
func share(policy *v1alpha1.HostNetwork, percentage string) *v1alpha1.HostNetwork {
	policy.Spec.MaxUnavailable = new(intstr.FromString(percentage))
	return policy
}

// waiting is a fleet of n nodes, a and on, that wait for a turn.
func waiting(n int) fleet {
	var lines []string
	for i := range n {
		lines = append(lines, string(rune('a'+i))+" p AwaitingTurn 1")
	}
	return fleetOf(lines...)
}

// fleetOf reads "NODE POLICY STATE PLAN" lines; a node may stand alone.
func fleetOf(lines ...string) fleet {
	f := newFleet(nil, nil)
	for _, line := range lines {
		words := strings.Fields(line)
		node := words[0]
		f.names = append(f.names, node)
		f.labels[node] = map[string]string{"name": node}
		if f.reports[node] == nil {
			f.reports[node] = make(map[string]v1alpha1.NetworkReport)
		}
		if len(words) == 1 {
			continue
		}
		report := v1alpha1.NetworkReport{Policy: words[1], ObservedGeneration: 2, State: words[2]}
		if len(words) > 3 {
			report.PlanHash = words[3]
		}
		f.reports[node][words[1]] = report
	}
	slices.Sort(f.names)
	f.names = slices.Compact(f.names)
	return f
}

// turnOfA is node a's, for plan 1.
func turnOfA() v1alpha1.Turn { return v1alpha1.Turn{Node: "a", Plan: "1", Generation: 2} }

func TestTurns(t *testing.T) {
	for name, test := range map[string]struct {
		policies []*v1alpha1.HostNetwork
		fleet    fleet
		want     string
	}{
		"one at a time, by name":             {[]*v1alpha1.HostNetwork{policyOf("p", 1)}, fleetOf("b p AwaitingTurn 1", "a p AwaitingTurn 1"), "p: a 1"},
		"two at a time":                      {[]*v1alpha1.HostNetwork{policyOf("p", 2)}, fleetOf("c p AwaitingTurn 1", "b p AwaitingTurn 2", "a p AwaitingTurn 1"), "p: a 1, b 2"},
		"half of them, rounded down":         {[]*v1alpha1.HostNetwork{share(policyOf("p", 0), "50%")}, waiting(5), "p: a 1, b 1"},
		"a hundredth of few is one":          {[]*v1alpha1.HostNetwork{share(policyOf("p", 0), "1%")}, waiting(5), "p: a 1"},
		"all of them":                        {[]*v1alpha1.HostNetwork{share(policyOf("p", 0), "100%")}, waiting(3), "p: a 1, b 1, c 1"},
		"no part of them":                    {[]*v1alpha1.HostNetwork{share(policyOf("p", 0), "0%")}, waiting(3), ""},
		"a share that nobody understands":    {[]*v1alpha1.HostNetwork{share(policyOf("p", 0), "half")}, waiting(3), ""},
		"none at a time":                     {[]*v1alpha1.HostNetwork{policyOf("p", 0)}, fleetOf("a p AwaitingTurn 1"), ""},
		"nobody waits":                       {[]*v1alpha1.HostNetwork{policyOf("p", 1)}, fleetOf("a p Pending 1", "b p Converged", "c p AwaitingApproval 1", "d"), ""},
		"the turn is used":                   {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a p AwaitingTurn 1", "b p AwaitingTurn 1"), "p: a 1"},
		"the turn is over":                   {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a p Converged", "b p AwaitingTurn 1"), "p: b 1"},
		"the turn was of no use":             {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a p Refused 1", "b p AwaitingTurn 1"), "p: b 1"},
		"undone: nobody else":                {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a p RolledBack 1", "b p AwaitingTurn 1"), "p: a 1"},
		"undone, and the policy is new":      {[]*v1alpha1.HostNetwork{policyOf("p", 1, v1alpha1.Turn{Node: "a", Plan: "1", Generation: 1})}, fleetOf("a p AwaitingTurn 3", "b p AwaitingTurn 1"), "p: a 3"},
		"another plan":                       {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a p AwaitingTurn 2", "b p AwaitingTurn 1"), "p: a 2"},
		"the agent is away":                  {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("a", "b p AwaitingTurn 1"), "p: a 1"},
		"the node has vanished":              {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA())}, fleetOf("b p AwaitingTurn 1"), "p: b 1"},
		"one plan of two policies":           {[]*v1alpha1.HostNetwork{policyOf("p", 1), policyOf("q", 1)}, fleetOf("a p AwaitingTurn 1", "a q AwaitingTurn 1", "b p AwaitingTurn 1"), "p: a 1; q: a 1"},
		"one of two policies has no room":    {[]*v1alpha1.HostNetwork{policyOf("p", 1), policyOf("q", 0)}, fleetOf("a p AwaitingTurn 1", "a q AwaitingTurn 1", "b p AwaitingTurn 1"), "p: b 1"},
		"one of two policies is not allowed": {[]*v1alpha1.HostNetwork{policyOf("p", 1), policyOf("q", 1)}, fleetOf("a p AwaitingTurn 1", "a q AwaitingApproval 1"), ""},
		"one of two policies is new":         {[]*v1alpha1.HostNetwork{policyOf("p", 1, turnOfA()), policyOf("q", 1)}, fleetOf("a p AwaitingTurn 1", "a q AwaitingTurn 1"), "p: a 1; q: a 1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			turns := turnsOf(test.policies, test.fleet)
			for _, policy := range slices.Sorted(maps.Keys(turns)) {
				var nodes []string
				for _, turn := range turns[policy] {
					nodes = append(nodes, turn.Node+" "+turn.Plan)
				}
				if len(nodes) > 0 {
					got = append(got, policy+": "+strings.Join(nodes, ", "))
				}
			}
			if text := strings.Join(got, "; "); text != test.want {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}

// Whatever the agents do, no more nodes than allowed have their turn, and all
// come to it.
func TestTurnsReachEveryNode(t *testing.T) {
	const most = 3
	p, q := policyOf("p", most), policyOf("q", 2)
	f := newFleet(nil, nil)
	for i := range 40 {
		node := fmt.Sprintf("n%02d", i)
		f.names = append(f.names, node)
		f.labels[node] = nil
		f.reports[node] = map[string]v1alpha1.NetworkReport{"p": {Policy: "p", ObservedGeneration: 2, State: "AwaitingTurn", PlanHash: "1"}}
		if i%3 == 0 {
			f.reports[node]["q"] = v1alpha1.NetworkReport{Policy: "q", ObservedGeneration: 2, State: "AwaitingTurn", PlanHash: "1"}
		}
	}
	for round := 0; ; round++ {
		turns := turnsOf([]*v1alpha1.HostNetwork{p, q}, f)
		p.Status.Turns, q.Status.Turns = turns["p"], turns["q"]
		if len(turns["p"]) > most || len(turns["q"]) > 2 {
			t.Fatalf("%v", turns)
		}
		if len(turns["p"]) == 0 {
			break
		}
		if round > 100 {
			t.Fatal("it does not come to an end")
		}
		// The last that has its turn ends first.
		node := turns["p"][len(turns["p"])-1].Node
		for name, report := range f.reports[node] {
			report.State, report.PlanHash = "Converged", ""
			f.reports[node][name] = report
		}
	}
	for node, reports := range f.reports {
		for _, report := range reports {
			if report.State != "Converged" {
				t.Errorf("%s: %+v", node, report)
			}
		}
	}
}

func TestSummary(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*v1alpha1.HostNetwork)
		fleet  fleet
		want   string
		counts v1alpha1.NodeCounts
	}{
		"no node":           {nil, fleetOf(), "True NoNodes", v1alpha1.NodeCounts{}},
		"all":               {nil, fleetOf("a p Converged", "b p Converged"), "True Converged", v1alpha1.NodeCounts{Selected: 2, Converged: 2}},
		"some wait":         {nil, fleetOf("a p Converged", "b p AwaitingTurn 1", "c"), "False Progressing", v1alpha1.NodeCounts{Selected: 3, Converged: 1, Waiting: 2}},
		"some need a word":  {nil, fleetOf("a p AwaitingApproval 1", "b p Pending"), "False AwaitingApproval", v1alpha1.NodeCounts{Selected: 2, Waiting: 2}},
		"one was undone":    {nil, fleetOf("a p Refused", "b p RolledBack", "c p AwaitingApproval 1"), "False RolledBack", v1alpha1.NodeCounts{Selected: 3, Waiting: 1, Failed: 2}},
		"one has drifted":   {nil, fleetOf("a p Drifted", "b p Converged"), "False Drifted", v1alpha1.NodeCounts{Selected: 2, Converged: 1, Drifted: 1}},
		"the report is old": {func(p *v1alpha1.HostNetwork) { p.Generation = 3 }, fleetOf("a p Converged"), "False Progressing", v1alpha1.NodeCounts{Selected: 1, Waiting: 1}},
		"no sense":          {func(p *v1alpha1.HostNetwork) { p.Spec.Probes.Timeout = "1h" }, fleetOf("a p Refused"), "False Invalid", v1alpha1.NodeCounts{Selected: 1, Failed: 1}},
		"being deleted":     {func(p *v1alpha1.HostNetwork) { p.DeletionTimestamp = &metav1.Time{Time: metav1.Now().Time} }, fleetOf("a p Pending"), "False Restoring", v1alpha1.NodeCounts{Selected: 1, Waiting: 1}},
		"for others": {func(p *v1alpha1.HostNetwork) {
			p.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": "b"}}
		}, fleetOf("a p Refused", "b p Converged"), "True Converged", v1alpha1.NodeCounts{Selected: 1, Converged: 1}},
	} {
		policy := policyOf("p", 1)
		if test.change != nil {
			test.change(policy)
		}
		status := statusOf(policy, test.fleet, nil, nil, metav1.Now())
		if len(status.Conditions) != 1 {
			t.Fatalf("%s: %+v", name, status)
		}
		if got := string(status.Conditions[0].Status) + " " + status.Conditions[0].Reason; got != test.want || status.Nodes != test.counts {
			t.Errorf("%s: got %s, %+v; want %s", name, got, status.Nodes, test.want)
		}
		policy.Status = status
		if again := statusOf(policy, test.fleet, nil, nil, metav1.NewTime(metav1.Now().Add(1e12))); !again.Conditions[0].LastTransitionTime.Equal(&status.Conditions[0].LastTransitionTime) {
			t.Errorf("%s: the time of a condition has changed without it", name)
		}
	}
}

func TestUnrestored(t *testing.T) {
	policy := policyOf("p", 1)
	f := fleetOf("a p Restored", "b p Converged", "c p Refused 1", "d other Converged", "e")
	if got := f.unrestored(policy); len(got) != 2 || !strings.HasPrefix(got[0], "b: Converged") || !strings.HasPrefix(got[1], "c: Refused") {
		t.Errorf("got %v", got)
	}
	// Nobody has answered to the next generation, not even the one that
	// restored a policy of this name before.
	policy.Generation++
	if got := f.unrestored(policy); len(got) != 3 || slices.ContainsFunc(got, func(s string) bool { return !strings.Contains(s, ": has not answered (") }) {
		t.Errorf("got %v", got)
	}
}
