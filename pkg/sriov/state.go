package sriov

import (
	"fmt"
	"slices"
	"strings"
)

// State is what a host has, and who uses it.
type State struct {
	PFs []PFState `json:"pfs"` // in address order
	// Drivers are the PCI drivers that are loaded.
	Drivers []string `json:"drivers,omitempty"`
}

// PFState is a PF with what has to be known to change it.
type PFState struct {
	PF
	Autoprobe bool      `json:"autoprobe"` // sriov_drivers_autoprobe: new VFs get a driver at once
	LinkDown  bool      `json:"linkDown"`  // its interface says that there is no link
	Users     []User    `json:"users,omitempty"`
	Uplink    string    `json:"uplink,omitempty"` // why the node is cut off without it; empty: it is not
	VFs       []VFState `json:"vfs,omitempty"`    // in index order
}

// VFState is a VF with what has to be known to change it.
type VFState struct {
	VF
	Override string `json:"driverOverride,omitempty"` // driver_override: the only driver that may bind
	// Neighbours share the VF's IOMMU group, so that none of them can be given
	// to a VM alone.
	Neighbours []string   `json:"neighbours,omitempty"`
	Attributes Attributes `json:"attributes"`
	MTU        int        `json:"mtu,omitempty"` // of its interface, when it has one here
	Users      []User     `json:"users,omitempty"`
}

// User is evidence that a function is in use: hands off.
type User struct {
	Source string `json:"source"` // the path, socket or interface that showed it
	Detail string `json:"detail"`
}

func (u User) String() string { return fmt.Sprintf("%s (%s)", u.Detail, u.Source) }

// IsVFIO reports whether a driver for user space has the VF.
func (v VF) IsVFIO() bool { return isVFIO(v.Driver, nil) }

// Find returns the PF at an address.
func (s State) Find(address string) (PFState, bool) {
	for _, pf := range s.PFs {
		if pf.Address == address {
			return pf, true
		}
	}
	return PFState{}, false
}

// VF returns the VF at an index.
func (p PFState) VF(index int) (VFState, bool) {
	if index >= 0 && index < len(p.VFs) && p.VFs[index].Index == index {
		return p.VFs[index], true // none is missing before it
	}
	if i := slices.IndexFunc(p.VFs, func(vf VFState) bool { return vf.Index == index }); i >= 0 {
		return p.VFs[i], true
	}
	return VFState{}, false
}

// Netdev returns the interface of a PF, "" when it has none here.
func (p PF) Netdev() string {
	if len(p.Netdevs) == 0 {
		return ""
	}
	return p.Netdevs[0]
}

// Name tells people which PF: "0000:01:00.0 (eth0)".
func (p PF) Name() string { return named(p.Address, p.Netdevs) }

// Name tells people which VF: "VF 3 (0000:02:10.6, eth4)".
func (v VF) Name() string {
	return fmt.Sprintf("VF %d (%s)", v.Index, strings.Join(append([]string{v.Address}, v.Netdevs...), ", "))
}

func named(address string, netdevs []string) string {
	if len(netdevs) == 0 {
		return address
	}
	return fmt.Sprintf("%s (%s)", address, strings.Join(netdevs, ", "))
}

// IsolationProblem says why a VF must not be given to a VM, or "".
func (v VFState) IsolationProblem() string {
	switch {
	case v.IOMMUGroup == nil:
		return v.Name() + " is in no IOMMU group: a VM that has it could read and write all memory; turn the IOMMU on (intel_iommu=on, or amd_iommu) and boot again"
	case len(v.Neighbours) > 0:
		return fmt.Sprintf("%s shares IOMMU group %d with %s: a VM that has one of them could reach the others; use a slot whose ports isolate their devices (PCIe ACS)",
			v.Name(), *v.IOMMUGroup, strings.Join(v.Neighbours, ", "))
	}
	return ""
}
