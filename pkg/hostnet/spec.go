package hostnet

import "github.com/virtnode/nodeagent/api/v1alpha1"

// Spec is what the links of this host shall be: policies, merged, with each
// interface resolved to the card that it is here.
type Spec struct {
	Links []Wanted
	Cards []Card
}

// Wanted is what one link shall be. What is empty is left as it is.
type Wanted struct {
	Name       string
	Policy     string
	Device     *Device // how it is made; nil: a card, which nobody makes
	Identity   string
	Altnames   []string
	MTU        int    // 0: of a link that we make, the same as below; of a card, as it was
	Master     string // bridge or bond; empty: none of ours
	MasterKind string
	VLANs      []string // through the bridge
	Addresses  []string
	Routes     []string
}

// Card is an interface of a policy, and the card that it is on this host: what
// the planner of virtual functions needs.
type Card struct {
	Policy     string
	Interface  v1alpha1.Interface
	Link       string // its name of today
	PCIAddress string
}

// Disruptive says, by policy, whether its steps may disrupt.
func Disruptive(policies []v1alpha1.HostNetwork) func(policy string) bool {
	allow := make(map[string]bool)
	for _, policy := range policies {
		allow[policy.Name] = policy.Spec.Disruption == v1alpha1.DisruptionAllow
	}
	// What nobody wants any more is brought back as it was: that is harmful
	// only to users, and they are guarded in any case.
	return func(policy string) bool {
		allowed, known := allow[policy]
		return allowed || !known
	}
}
