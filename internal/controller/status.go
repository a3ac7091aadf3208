package controller

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// A message names so many nodes, and of each so much.
const (
	mostNamed  = 5
	mostOfLine = 400
)

// statusOf sums up what became of a policy. Times are filled in where a
// condition has changed.
func statusOf(policy *v1alpha1.HostNetwork, f fleet, turns []v1alpha1.Turn, attachments *metav1.Condition, now metav1.Time) v1alpha1.HostNetworkStatus {
	status := *policy.Status.DeepCopy()
	status.ObservedGeneration = policy.Generation
	status.Turns = turns
	ready := summary(policy, f, &status)
	ready.Type, ready.ObservedGeneration, ready.LastTransitionTime = v1alpha1.ConditionReady, policy.Generation, now
	meta.SetStatusCondition(&status.Conditions, ready)
	if attachments == nil {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionAttachmentsReady)
		return status
	}
	attachments.Type, attachments.ObservedGeneration, attachments.LastTransitionTime = v1alpha1.ConditionAttachmentsReady, policy.Generation, now
	meta.SetStatusCondition(&status.Conditions, *attachments)
	return status
}

// summary counts the nodes, and says in one condition how they are.
func summary(policy *v1alpha1.HostNetwork, f fleet, status *v1alpha1.HostNetworkStatus) metav1.Condition {
	var failed, drifted, unapproved []string
	failure := ""
	counts := v1alpha1.NodeCounts{}
	for _, node := range f.selected(policy) {
		counts.Selected++
		report, known := f.report(node, policy)
		line := func() string { return fmt.Sprintf("%s: %s: %s", node, report.State, report.Message) }
		switch {
		case !known:
			counts.Waiting++
		case report.State == v1alpha1.NetworkConverged:
			counts.Converged++
		case report.State == v1alpha1.NetworkDrifted:
			counts.Drifted++
			drifted = append(drifted, line())
		case report.State == v1alpha1.NetworkAwaitingApproval:
			counts.Waiting++
			unapproved = append(unapproved, line())
		case report.State == v1alpha1.NetworkPending, report.State == v1alpha1.NetworkAwaitingTurn, report.State == v1alpha1.NetworkRestored:
			counts.Waiting++
		default:
			counts.Failed++
			failed = append(failed, line())
			if failure == "" || report.State == v1alpha1.NetworkRolledBack {
				failure = report.State
			}
		}
	}
	status.Nodes = counts
	problems := policy.Validate()
	switch {
	case !policy.DeletionTimestamp.IsZero():
		return condition(metav1.ConditionFalse, "Restoring", "waits for the nodes to be as they were before", f.unrestored(policy))
	case len(problems) > 0:
		var lines []string
		for _, problem := range problems {
			lines = append(lines, problem.String())
		}
		return condition(metav1.ConditionFalse, "Invalid", "the nodes change nothing before this is corrected", lines)
	case counts.Selected == 0:
		return condition(metav1.ConditionTrue, "NoNodes", "it selects no node", nil)
	case len(failed) > 0:
		return condition(metav1.ConditionFalse, failure, fmt.Sprintf("%d of %d nodes", len(failed), counts.Selected), failed)
	case len(unapproved) > 0:
		return condition(metav1.ConditionFalse, v1alpha1.NetworkAwaitingApproval, fmt.Sprintf("%d of %d nodes", len(unapproved), counts.Selected), unapproved)
	case counts.Waiting > 0:
		return condition(metav1.ConditionFalse, "Progressing", fmt.Sprintf("%d of %d nodes are as wanted", counts.Converged, counts.Selected), nil)
	case len(drifted) > 0:
		return condition(metav1.ConditionFalse, v1alpha1.NetworkDrifted, fmt.Sprintf("%d of %d nodes", len(drifted), counts.Selected), drifted)
	}
	return condition(metav1.ConditionTrue, v1alpha1.NetworkConverged, fmt.Sprintf("%d nodes are as wanted", counts.Selected), nil)
}

// condition names the first few of what it is about.
func condition(status metav1.ConditionStatus, reason, message string, about []string) metav1.Condition {
	parts := []string{message}
	for i, line := range about {
		if i == mostNamed {
			parts = append(parts, fmt.Sprintf("and %d more", len(about)-i))
			break
		}
		if len(line) > mostOfLine {
			line = strings.ToValidUTF8(line[:mostOfLine], "") + "…"
		}
		parts = append(parts, line)
	}
	return metav1.Condition{Status: status, Reason: reason, Message: strings.Join(parts, "; ")}
}
