package sriov

import (
	"fmt"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// Spec is what the VFs of one PF shall be.
type Spec struct {
	PF     string // address
	Policy string // who wants it
	NumVFs int
	Pools  []Pool // disjoint; a VF of none is left as the driver made it
}

// Pool is a set of VFs that are alike.
type Pool struct {
	Name         string
	VFs          []int  // indices
	Driver       string // empty: the one that the kernel picks by itself
	Attributes   Attributes
	MTU          int // of the VFs' own interfaces; 0: left as it is
	DevicePlugin bool
	Resource     string // what pods ask for
}

// NewSpec reads the part of a policy that is about the PF at an address.
func NewSpec(policy, address string, want v1alpha1.SRIOV) (Spec, error) {
	spec := Spec{PF: address, Policy: policy, NumVFs: want.NumVFs}
	for _, p := range want.Pools {
		indices, err := v1alpha1.ParseIndices(p.VFs)
		if err != nil {
			return spec, fmt.Errorf("pool %s: vfs: %w", p.Name, err)
		}
		pool := Pool{
			Name: p.Name, VFs: indices, Driver: p.Driver, MTU: p.MTU,
			DevicePlugin: p.DevicePlugin, Resource: p.ResourceName,
			Attributes: Attributes{
				VLAN: new(p.VLAN), QoS: new(p.QoS), VLANProtocol: p.VLANProtocol,
				MinTxRate: p.MinTxRate, MaxTxRate: p.MaxTxRate,
				SpoofCheck: p.SpoofCheck, Trust: p.Trust, LinkState: p.LinkState,
			},
		}
		spec.Pools = append(spec.Pools, pool)
	}
	return spec, nil
}

// pools returns the pool of each VF, by index; nil for one that is in none.
func (s Spec) pools() []*Pool {
	of := make([]*Pool, s.NumVFs)
	for i := range s.Pools {
		for _, index := range s.Pools[i].VFs {
			if index < len(of) {
				of[index] = &s.Pools[i]
			}
		}
	}
	return of
}
