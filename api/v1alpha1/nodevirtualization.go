package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindNodeVirtualization is the kind of [NodeVirtualization].
const KindNodeVirtualization = "NodeVirtualization"

// NodeVirtualization is what the agent of a node found there: can it run VMs,
// and is its network as it shall be? It has the node's name, and goes with the
// node.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nv,categories=virtnode
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.verdict`
// +kubebuilder:printcolumn:name="Reasons",type=string,JSONPath=`.status.reasons`
// +kubebuilder:printcolumn:name="Network",type=string,JSONPath=`.status.conditions[?(@.type=="HostNetworkReady")].reason`
// +kubebuilder:printcolumn:name="VFs",type=integer,JSONPath=`.status.vfs.configured`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agent`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeVirtualization struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// What was found. Nothing is wanted of a node by this object: that is what HostNetworks are for.
	// +optional
	Status NodeVirtualizationStatus `json:"status,omitzero"`
}

// NodeVirtualizationList is a list of them.
//
// +kubebuilder:object:root=true
type NodeVirtualizationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []NodeVirtualization `json:"items"`
}

// NodeVirtualizationStatus is what was found.
type NodeVirtualizationStatus struct {
	// Version of the agent.
	// +optional
	Agent string `json:"agent,omitempty"`
	// The durable verdict about the node: Ready, NotReady or Unknown. It is that of the condition VirtualizationReady.
	// +optional
	Verdict string `json:"verdict,omitempty"`
	// Why it is not Ready: the reasons of the findings that decide, joined by commas.
	// +optional
	Reasons string `json:"reasons,omitempty"`
	// Names the node's labels of this agent: it changes when they do.
	// +optional
	FactsDigest string `json:"factsDigest,omitempty"`
	// What was judged, with the remedy for what is wrong. Like the labels, it changes for the worse only after three
	// looks in a row over a minute; the numbers in a message are those of when it came up.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Findings []NodeFinding `json:"findings,omitempty"`
	// Physical functions that can have virtual ones.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	PFs []PhysicalFunction `json:"pfs,omitempty"`
	// Virtual functions in all.
	// +optional
	VFs VFCount `json:"vfs,omitzero"`
	// What became of each HostNetwork that selects the node.
	// +optional
	// +listType=map
	// +listMapKey=policy
	// +kubebuilder:validation:MaxItems=256
	Networks []NetworkReport `json:"networks,omitempty"`
	// VirtualizationReady and HostNetworkReady, as on the Node.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeFinding is the answer to one check.
type NodeFinding struct {
	Area  string `json:"area"`
	Check string `json:"check"`
	// required, recommended or optional.
	// +optional
	Level string `json:"level,omitempty"`
	// Ready, NotReady or Unknown.
	Status string `json:"status"`
	// One word for what is wrong.
	// +optional
	Reason string `json:"reason,omitempty"`
	// What was seen, and where.
	// +optional
	Message string `json:"message,omitempty"`
	// What a person can do about it.
	// +optional
	Remedy string `json:"remedy,omitempty"`
}

// PhysicalFunction is a card that can have virtual functions.
type PhysicalFunction struct {
	PCIAddress string `json:"pciAddress"`
	// The kernel's name of its link.
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	Driver string `json:"driver,omitempty"`
	// NUMA node; absent where the host has none or does not tell.
	// +optional
	NUMANode *int `json:"numaNode,omitempty"`
	VFCount  `json:",inline"`
}

// VFCount counts virtual functions.
type VFCount struct {
	// How many there can be.
	Total int `json:"total"`
	// How many there are.
	Configured int `json:"configured"`
}

// NetworkReport is what became of one HostNetwork on this node.
type NetworkReport struct {
	// Name of the HostNetwork.
	Policy string `json:"policy"`
	// The generation of the HostNetwork that this is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Converged, Pending, AwaitingTurn, AwaitingApproval, Refused, RolledBack, Conflict, Drifted, Failed or Restored.
	State string `json:"state"`
	// Why, in one line.
	// +optional
	Message string `json:"message,omitempty"`
	// The hash of the plan, for spec.approvedPlans.
	// +optional
	PlanHash string `json:"planHash,omitempty"`
	// Steps of the plan that are not made yet, a line each.
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	Steps []string `json:"steps,omitempty"`
	// How each interface of the policy is.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	Interfaces []InterfaceReport `json:"interfaces,omitempty"`
}

// InterfaceReport is how one interface of a HostNetwork is on this node.
type InterfaceReport struct {
	// Name of the interface in the policy.
	Name string `json:"name"`
	// The kernel's name of the link; empty when no card matches.
	// +optional
	Link string `json:"link,omitempty"`
	// Whether it is as the policy wants it.
	Ready bool `json:"ready"`
	// What is not.
	// +optional
	Message string `json:"message,omitempty"`
}
