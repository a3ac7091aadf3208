package node

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
)

// maxSteps is how many steps a report names.
const maxSteps = 100

// networkReports says what became of the policies that select a node with these
// labels, and of those that did and are not restored yet. It is never nil.
func networkReports(all []v1alpha1.HostNetwork, labels map[string]string, look *network.Look) []v1alpha1.NetworkReport {
	reports := []v1alpha1.NetworkReport{}
	for i := range all {
		policy := &all[i]
		selects, err := policy.Selects(labels)
		report := v1alpha1.NetworkReport{Policy: policy.Name, ObservedGeneration: policy.Generation}
		problem := sense(policy)
		switch {
		case !policy.DeletionTimestamp.IsZero() || err == nil && !selects:
			judgeRestored(&report, look)
			if report.State == v1alpha1.NetworkRestored && policy.DeletionTimestamp.IsZero() {
				continue
			}
		case problem != nil:
			report.State, report.Message = v1alpha1.NetworkRefused, problem.Error()
		case look.Err != nil:
			report.State, report.Message = v1alpha1.NetworkFailed, look.Err.Error()
		default:
			judgeWanted(&report, policy, look)
		}
		report.Message = clip(report.Message, mostMessage)
		reports = append(reports, report)
	}
	return reports
}

// judgeWanted judges a policy that selects the node.
func judgeWanted(report *v1alpha1.NetworkReport, policy *v1alpha1.HostNetwork, look *network.Look) {
	if !slices.ContainsFunc(look.View.Policies, func(p v1alpha1.HostNetwork) bool {
		return p.Name == policy.Name && p.Generation == policy.Generation
	}) {
		report.State, report.Message = v1alpha1.NetworkPending, "the node has not looked at it yet"
		return
	}
	plan := look.View.Plan
	own := func(of string) bool { return of == policy.Name }
	steps := slices.DeleteFunc(slices.Clone(plan.Steps), func(s reconcile.Step) bool { return !own(s.Policy) })
	refusals := slices.DeleteFunc(slices.Clone(plan.Refusals), func(r reconcile.Refusal) bool { return !own(r.Policy) })
	hard := slices.DeleteFunc(slices.Clone(refusals), waits)
	report.Interfaces = interfaceReports(policy, look.View.Cards, steps, hard)
	fill(report, plan.Hash(), steps)
	switch {
	case len(hard) > 0:
		report.State, report.Message = v1alpha1.NetworkRefused, hard[0].Error()
		if slices.ContainsFunc(hard, func(r reconcile.Refusal) bool { return r.Guard == "conflict" }) {
			report.State = v1alpha1.NetworkConflict
		}
	case len(steps) == 0:
		report.State = v1alpha1.NetworkConverged
	case look.Held:
		report.State, report.Message = v1alpha1.NetworkDrifted, "it was as wanted, and somebody has changed it since"
	case tried(look, plan.Hash()):
		report.State, report.Message = v1alpha1.NetworkRolledBack, look.Last.Cause
	case look.Cause != nil:
		report.State, report.Message = v1alpha1.NetworkRefused, look.Cause.Error()
	case firstHard(plan.Refusals) != nil:
		report.State, report.Message = v1alpha1.NetworkPending, "nothing is changed before this is solved: "+firstHard(plan.Refusals).Error()
	case len(refusals) > 0 && !policy.Permits(plan.Hash()):
		report.State = v1alpha1.NetworkAwaitingApproval
		report.Message = fmt.Sprintf("it disrupts: put the plan %s into spec.approvedPlans, or write disruption: Allow", plan.Hash())
	case len(refusals) > 0:
		report.State, report.Message = v1alpha1.NetworkAwaitingTurn, "it disrupts, and waits for the node's turn"
	case len(plan.Refusals) > 0:
		report.State, report.Message = v1alpha1.NetworkPending, "it waits for "+plan.Refusals[0].Policy+", which disrupts"
	default:
		report.State, report.Message = v1alpha1.NetworkPending, "it is about to be applied"
	}
}

// waits reports whether a refusal is no more than the want of a permit.
func waits(r reconcile.Refusal) bool { return r.Guard == "disruption" }

// firstHard returns what no permit overcomes; nil: nothing.
func firstHard(refusals []reconcile.Refusal) *reconcile.Refusal {
	for i := range refusals {
		if !waits(refusals[i]) {
			return &refusals[i]
		}
	}
	return nil
}

// tried reports whether a plan was tried last, and undone.
func tried(look *network.Look, plan string) bool {
	undone := look.Last.Result == reconcile.Reverted || look.Last.Result == reconcile.Stuck
	return undone && look.Last.Request.Plan == plan
}

// judgeRestored judges a policy that does not select the node any more, or is being
// deleted.
func judgeRestored(report *v1alpha1.NetworkReport, look *network.Look) {
	if look.Err != nil {
		report.State, report.Message = v1alpha1.NetworkFailed, look.Err.Error()
		return
	}
	for _, policy := range look.View.Policies {
		if policy.Name == report.Policy {
			report.State, report.Message = v1alpha1.NetworkPending, "what was there before is about to be restored"
			return
		}
	}
	plan := look.View.Plan
	var left []reconcile.Step
	for _, step := range plan.Steps {
		if slices.ContainsFunc(look.View.Ours, func(o reconcile.Step) bool { return o.Policy == report.Policy && o.Key() == step.Key() }) {
			left = append(left, step)
		}
	}
	fill(report, plan.Hash(), left)
	switch {
	case len(left) == 0:
		report.State = v1alpha1.NetworkRestored
	case len(plan.Refusals) > 0:
		report.State, report.Message = v1alpha1.NetworkRefused, "not restored: "+plan.Refusals[0].Error()
	case tried(look, plan.Hash()):
		report.State, report.Message = v1alpha1.NetworkRolledBack, look.Last.Cause
	case look.Cause != nil:
		report.State, report.Message = v1alpha1.NetworkRefused, "not restored: "+look.Cause.Error()
	default:
		report.State, report.Message = v1alpha1.NetworkPending, "what was there before is about to be restored"
	}
}

// fill says what is still to do, and as part of which plan.
func fill(report *v1alpha1.NetworkReport, plan string, steps []reconcile.Step) {
	for i, step := range steps {
		if i == maxSteps {
			report.Steps = append(report.Steps, fmt.Sprintf("and %d more", len(steps)-i))
			break
		}
		report.Steps = append(report.Steps, step.String())
	}
	if len(steps) > 0 {
		report.PlanHash = plan
	}
}

// interfaceReports says of each interface what is not as it shall be.
func interfaceReports(policy *v1alpha1.HostNetwork, cards []hostnet.Card, steps []reconcile.Step, refusals []reconcile.Refusal) []v1alpha1.InterfaceReport {
	var all []v1alpha1.InterfaceReport
	for i := range policy.Spec.Interfaces {
		in := &policy.Spec.Interfaces[i]
		link, targets := targetsOf(policy.Name, in, cards)
		report := v1alpha1.InterfaceReport{Name: in.Name, Link: link}
		var wrong []string
		for _, refusal := range refusals {
			if slices.ContainsFunc(targets, func(t string) bool { return refusal.Target == t || strings.HasSuffix(refusal.Target, " of "+t) }) {
				wrong = append(wrong, refusal.Error())
			}
		}
		for _, step := range steps {
			if slices.Contains(targets, step.Target) {
				wrong = append(wrong, step.String())
			}
		}
		if report.Ready = len(wrong) == 0 && report.Link != ""; len(wrong) > 0 {
			report.Message = clip(wrong[0], mostMessage)
		}
		all = append(all, report)
	}
	return all
}

// targetsOf returns the link of an interface, and all that steps call it and
// what is built on it.
func targetsOf(policy string, in *v1alpha1.Interface, cards []hostnet.Card) (link string, targets []string) {
	targets = []string{in.Name}
	if in.Bond != nil {
		link = in.Bond.Name
	}
	for _, card := range cards {
		if card.Policy == policy && card.Interface.Name == in.Name {
			link = card.Link
			targets = append(targets, card.PCIAddress)
		}
	}
	for _, vlan := range in.VLANs {
		targets = append(targets, vlan.Name)
	}
	if in.Bridge != nil {
		targets = append(targets, in.Bridge.Name)
	}
	if in.HostShim != nil {
		targets = append(targets, in.HostShim.Name)
	}
	return link, append(targets, link)
}
