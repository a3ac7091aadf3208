package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// turnsOf returns, by policy, the nodes whose turn it is to be disrupted. Turns
// that are over are taken back, and given to those that wait, in the order of
// their names, as far as maxUnavailable goes. A plan of several policies gets
// its turn in all of them at once, or in none.
func turnsOf(policies []*v1alpha1.HostNetwork, f fleet) map[string][]v1alpha1.Turn {
	turns := make(map[string][]v1alpha1.Turn)
	free := make(map[string]int)
	waiting := make(map[string][]*v1alpha1.HostNetwork) // by node
	var nodes []string
	for _, policy := range policies {
		selected := f.selected(policy)
		for _, turn := range policy.Status.Turns {
			if slices.Contains(selected, turn.Node) && lasts(turn, policy, f) {
				turns[policy.Name] = append(turns[policy.Name], turn)
			}
		}
		free[policy.Name] = atOnce(policy.Spec.MaxUnavailable, len(selected)) - len(turns[policy.Name])
		for _, node := range selected {
			if report, known := f.report(node, policy); known && report.State == v1alpha1.NetworkAwaitingTurn && report.PlanHash != "" {
				waiting[node] = append(waiting[node], policy)
				nodes = append(nodes, node)
			}
		}
	}
	slices.Sort(nodes)
	for _, node := range slices.Compact(nodes) {
		grant(node, waiting[node], f, turns, free)
	}
	return turns
}

// atOnce is how many of the selected nodes may be disrupted at the same time. A
// percentage of few nodes is one of them, or nothing would ever go on.
func atOnce(most *intstr.IntOrString, selected int) int {
	if most == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(most, selected, false)
	switch {
	case err != nil:
		return 0 // nobody knows what is meant
	case most.Type == intstr.String && n == 0 && most.StrVal != "0%":
		return 1
	}
	return n
}

// grant gives a node its turn in all policies that its plan waits for.
func grant(node string, waiting []*v1alpha1.HostNetwork, f fleet, turns map[string][]v1alpha1.Turn, free map[string]int) {
	plan := f.reports[node][waiting[0].Name].PlanHash
	for _, report := range f.reports[node] {
		if report.State == v1alpha1.NetworkAwaitingApproval && report.PlanHash == plan {
			return // a part of the same plan is not allowed
		}
	}
	var fresh []*v1alpha1.HostNetwork
	for _, policy := range waiting {
		has := slices.ContainsFunc(turns[policy.Name], func(t v1alpha1.Turn) bool { return t.Node == node })
		switch {
		case f.reports[node][policy.Name].PlanHash != plan:
			return // the reports are of two looks: the next one decides
		case has:
		case free[policy.Name] <= 0:
			return
		default:
			fresh = append(fresh, policy)
		}
	}
	for _, policy := range fresh {
		free[policy.Name]--
		turns[policy.Name] = append(turns[policy.Name], v1alpha1.Turn{Node: node, Plan: plan, Generation: policy.Generation})
	}
}

// lasts reports whether a turn is not over. One whose change was undone lasts:
// what harms one node shall not go on to the next, until the policy is changed.
func lasts(turn v1alpha1.Turn, policy *v1alpha1.HostNetwork, f fleet) bool {
	if turn.Generation != policy.Generation {
		return false
	}
	report, known := f.report(turn.Node, policy)
	if !known {
		return true // an agent that is away may be in the middle of it
	}
	switch report.State {
	case v1alpha1.NetworkConverged, v1alpha1.NetworkDrifted, v1alpha1.NetworkRefused, v1alpha1.NetworkConflict, v1alpha1.NetworkAwaitingApproval:
		return false
	case v1alpha1.NetworkPending, v1alpha1.NetworkAwaitingTurn:
		return report.PlanHash == turn.Plan || report.PlanHash == ""
	}
	return true
}
