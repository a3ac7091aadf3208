package kvmcheck

// Survey is what KVM says of itself when it is asked, without a guest.
type Survey struct {
	Node         Node                  `json:"node"`
	Capabilities Reading[[]Capability] `json:"capabilities"` // in the order of their numbers
	CPUID        Reading[[]CPUID]      `json:"cpuid"`        // KVM_GET_SUPPORTED_CPUID, as it came
	MSRs         Reading[[]MSR]        `json:"msrs"`         // KVM_GET_MSR_FEATURE_INDEX_LIST
	TSCKHz       Reading[uint64]       `json:"tscKHz"`       // KVM_GET_TSC_KHZ of a new vCPU
}

// Capability is KVM's answer to KVM_CHECK_EXTENSION.
type Capability struct {
	Name   string   `json:"name"` // as in linux/kvm.h, without KVM_CAP_
	Number int      `json:"number"`
	Value  int      `json:"value"` // 0: not there; what else means depends on the capability
	Means  []string `json:"means,omitempty"`
}

// capability returns KVM's answer about a capability, if it was asked for it.
func (s Survey) capability(name string) (value int, asked bool) {
	for _, capability := range s.Capabilities.Value {
		if capability.Name == name {
			return capability.Value, true
		}
	}
	return 0, false
}

// unaskedSurvey is what is known when /dev/kvm does not open.
func unaskedSurvey(node Node) Survey {
	why := node.Err
	if node.State == NodeAbsent {
		why = node.Path + " does not exist"
	}
	return Survey{
		Node:         node,
		Capabilities: Reading[[]Capability]{Source: node.Path, Err: why},
		CPUID:        Reading[[]CPUID]{Source: node.Path, Err: why},
		MSRs:         Reading[[]MSR]{Source: node.Path, Err: why},
		TSCKHz:       Reading[uint64]{Source: node.Path, Err: why},
	}
}
