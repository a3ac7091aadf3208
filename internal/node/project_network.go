package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// networkTruth is the part of the truth that is about HostNetworks. Their reports
// are published as they come; labels and the condition do not flap.
type networkTruth struct {
	labels     held[struct{}]
	conditions held[Condition]
	reports    []v1alpha1.NetworkReport
}

// observe returns what is published after a look at the network, of which
// nobody may have been in charge.
func (n networkTruth) observe(at time.Time, reports []v1alpha1.NetworkReport, managed bool) networkTruth {
	if !managed {
		return networkTruth{labels: n.labels.observe(at, nil), conditions: n.conditions.observe(at, nil)}
	}
	labels := proposedLabels(networkLabels(reports))
	if failed(reports) {
		// What could not be looked at is not known to be gone.
		for _, key := range n.labels.keys() {
			if !slices.ContainsFunc(labels, func(p proposal[struct{}]) bool { return p.key == key }) {
				labels = append(labels, proposal[struct{}]{key: key, pace: keep})
			}
		}
	}
	return networkTruth{
		labels:     n.labels.observe(at, labels),
		conditions: n.conditions.observe(at, []proposal[Condition]{proposedCondition(HostNetworkReady, hostNetworkReady(reports))}),
		reports:    reports,
	}
}

// failed reports whether the host's network could not be looked at.
func failed(reports []v1alpha1.NetworkReport) bool {
	return slices.ContainsFunc(reports, func(r v1alpha1.NetworkReport) bool { return r.State == v1alpha1.NetworkFailed })
}

// networkLabels has a label for each logical network whose interface is ready.
func networkLabels(reports []v1alpha1.NetworkReport) []Label {
	var all []Label
	for i := range reports {
		for _, link := range reports[i].Interfaces {
			value := ""
			if link.Ready {
				value = yes
			}
			all = append(all, Label{networkPrefix + labelValue(link.Name), value, true})
		}
	}
	return all
}

// hostNetworkReady is True when all policies hold.
func hostNetworkReady(reports []v1alpha1.NetworkReport) Condition {
	var failing []string
	reason, wanted := "", 0
	for i := range reports {
		report := &reports[i]
		if report.State == v1alpha1.NetworkRestored {
			continue // it is not for this node any more
		}
		wanted++
		if report.State != v1alpha1.NetworkConverged {
			failing = append(failing, fmt.Sprintf("%s: %s: %s", report.Policy, report.State, report.Message))
			reason = cmp.Or(reason, report.State)
		}
	}
	switch {
	case failed(reports):
		return Condition{Status: "Unknown", Reason: v1alpha1.NetworkFailed, Message: clip(strings.Join(failing, "; "), mostMessage)}
	case len(failing) > 0:
		return Condition{Status: "False", Reason: reason, Message: clip(strings.Join(failing, "; "), mostMessage)}
	case wanted == 0:
		return Condition{Status: "True", Reason: "NoPolicy", Message: "no HostNetwork is for this node"}
	default:
		return Condition{Status: "True", Reason: "Converged", Message: fmt.Sprintf("HostNetworks that hold: %d", wanted)}
	}
}
