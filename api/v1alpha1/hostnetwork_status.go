package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of a HostNetwork.
const (
	// ConditionReady says whether every node that is selected is as the policy
	// wants it.
	ConditionReady = "Ready"
	// ConditionAttachmentsReady says whether what Multus shall offer is there.
	ConditionAttachmentsReady = "AttachmentsReady"
)

// HostNetworkStatus is what became of a HostNetwork in a cluster.
type HostNetworkStatus struct {
	// The generation that this is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// How many nodes are how far.
	// +optional
	Nodes NodeCounts `json:"nodes,omitzero"`
	// The nodes whose turn it is to carry out a plan that disrupts. Nobody but the controller gives turns.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=10000
	Turns []Turn `json:"turns,omitempty"`
	// Ready: every node is as wanted. AttachmentsReady: what Multus shall offer is there.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeCounts counts nodes by what became of a HostNetwork there. Each selected
// node is in one of the others.
type NodeCounts struct {
	// Selected by their labels.
	Selected int `json:"selected"`
	// As the policy wants them.
	Converged int `json:"converged"`
	// Not yet heard of, waiting for their turn, or for approval.
	Waiting int `json:"waiting"`
	// Refused by a guard, in conflict with another policy, undone after a failure, or in error.
	Failed int `json:"failed"`
	// Changed since by somebody else.
	Drifted int `json:"drifted"`
}

// Turn lets one node carry out one plan.
type Turn struct {
	// Name of the node.
	Node string `json:"node"`
	// The hash of the plan: another plan does not have the turn.
	Plan string `json:"plan"`
	// The generation of the HostNetwork for which the turn was given.
	Generation int64 `json:"generation"`
}

// TurnOf returns the turn of a node.
func (h *HostNetwork) TurnOf(node string) (Turn, bool) {
	for _, turn := range h.Status.Turns {
		if turn.Node == node {
			return turn, true
		}
	}
	return Turn{}, false
}

// States of a HostNetwork on a node.
const (
	NetworkConverged        = "Converged"        // the node is as the policy wants it
	NetworkPending          = "Pending"          // it is not yet: it is about to be, or waits for other policies
	NetworkAwaitingTurn     = "AwaitingTurn"     // the plan disrupts, and may, when it is the node's turn
	NetworkAwaitingApproval = "AwaitingApproval" // the plan disrupts, and nobody has allowed it
	NetworkRefused          = "Refused"          // a guard forbids it, or the policy makes no sense
	NetworkRolledBack       = "RolledBack"       // it was tried, and undone
	NetworkConflict         = "Conflict"         // another policy wants something else, with the same priority
	NetworkDrifted          = "Drifted"          // it was as the policy wants it, and somebody has changed that
	NetworkFailed           = "Failed"           // the node cannot tell
	NetworkRestored         = "Restored"         // the policy is being deleted, and nothing of it is left on the node
)

// Permits reports whether somebody has allowed a plan that disrupts. In a
// cluster it needs its turn too.
func (h *HostNetwork) Permits(plan string) bool {
	return h.Spec.Disruption == DisruptionAllow || slices.Contains(h.Spec.ApprovedPlans, plan)
}
