package v1alpha1

// DefaultProbeTimeout is how long a node may be out of reach after a change.
const DefaultProbeTimeout = Duration("30s")

// Protocols of a VLAN tag.
const (
	Protocol8021Q  = "802.1Q"
	Protocol8021AD = "802.1ad"
)

// Default fills in what the document leaves out.
func (h *HostNetwork) Default() {
	spec := &h.Spec
	orDefault(&spec.Disruption, DisruptionNone)
	orDefault(&spec.Probes.Timeout, DefaultProbeTimeout)
	if spec.Probes.Targets == nil {
		spec.Probes.Targets = []string{ProbeGateway}
	}
	for i := range spec.Interfaces {
		spec.Interfaces[i].setDefaults()
	}
	for i := range spec.Attachments {
		a := &spec.Attachments[i]
		orDefault(&a.Namespace, "default")
		switch a.Type {
		case AttachMacvtap:
			orDefault(&a.Capacity, 100)
			orDefault(&a.Mode, "bridge")
		case AttachMacvlan:
			orDefault(&a.Mode, "bridge")
		}
	}
}

func (i *Interface) setDefaults() {
	if bond := i.Bond; bond != nil {
		orDefault(&bond.Mode, BondActiveBackup)
		orDefault(&bond.MonitorInterval, 100)
		orDefault(&bond.TransmitHashPolicy, "layer2")
		if bond.Mode == Bond8023AD {
			orDefault(&bond.LACPRate, "slow")
		}
	}
	for v := range i.VLANs {
		orDefault(&i.VLANs[v].Protocol, Protocol8021Q)
	}
	if i.SRIOV != nil {
		for p := range i.SRIOV.Pools {
			pool := &i.SRIOV.Pools[p]
			orDefault(&pool.ResourceName, "virtnode.io/"+pool.Name)
			if pool.VLAN != 0 {
				orDefault(&pool.VLANProtocol, Protocol8021Q)
			}
		}
	}
	if i.HostShim != nil {
		orDefault(&i.HostShim.Parent, i.Name)
	}
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
