package kvmcheck

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// findCandidates finds the devices that are meant for VMs, and says of each
// whether its group can be handed over.
func findCandidates(facts Facts) Reading[[]Candidate] {
	pci, pfs, groups := facts.PCI.Devices, facts.SRIOV.PFs, facts.IOMMU.Groups
	if failure := cmp.Or(pci.Err, pfs.Err, groups.Err); failure != "" {
		return Reading[[]Candidate]{Source: iommuGroups, Err: failure}
	}
	place := make(map[string]IOMMUGroup) // by device
	for _, group := range groups.Value {
		if !group.Devices.Known {
			return Reading[[]Candidate]{Source: group.Devices.Source, Err: group.Devices.Err}
		}
		for _, device := range group.Devices.Value {
			place[device.Name] = group
		}
	}
	kinds := make(map[string]string) // by address
	for _, device := range pci.Value {
		kinds[device.Address] = kindOf(device.Class)
	}
	for _, pf := range pfs.Value {
		for _, vf := range pf.VFs {
			kinds[vf.Address] = kindVF
		}
	}
	between := bridges(pci.Value)
	candidates := []Candidate{}
	for _, address := range slices.Sorted(maps.Keys(kinds)) {
		var group *IOMMUGroup
		if in, found := place[address]; found {
			group = &in
		}
		if candidate, is := judgeCandidate(address, kinds[address], group, between); is {
			candidates = append(candidates, candidate)
		}
	}
	return known(iommuGroups, candidates)
}

// The kinds of candidates. One of another kind is only one when it is bound to
// VFIO, or may be.
const (
	kindVF    = "VF"
	kindGPU   = "GPU"
	kindNVMe  = "NVMe"
	kindOther = "other"
)

// kindOf reads a PCI class and subclass (PCI Code and ID Assignment
// Specification): 03 is a display controller, 12 a processing accelerator.
func kindOf(class string) string {
	switch {
	case strings.HasPrefix(class, "03"), strings.HasPrefix(class, "12"):
		return kindGPU
	case class == "0108":
		return kindNVMe
	default:
		return kindOther
	}
}

// bridges returns the PCI-to-PCI (0604, 0609) and CardBus (0607) bridges.
func bridges(devices []PCIDevice) map[string]bool {
	found := make(map[string]bool)
	for _, device := range devices {
		switch device.Class {
		case "0604", "0607", "0609":
			found[device.Address] = true
		}
	}
	return found
}

// judgeCandidate says of a device in a group, nil for none, whether the group
// can be handed to a VM: every other device in it must have no driver or one
// that leaves DMA to others (Linux Documentation/driver-api/vfio.rst;
// iommu_device_use_default_domain since 5.19). A device of another kind that
// is not bound to VFIO is none.
func judgeCandidate(address, kind string, group *IOMMUGroup, bridges map[string]bool) (candidate Candidate, is bool) {
	candidate = Candidate{Address: address, Kind: kind, Viable: known(iommuGroups, false)}
	if group == nil {
		return candidate, kind != kindOther
	}
	candidate.Group = &group.ID
	own, neighbours := Reading[string]{}, ""
	for _, device := range group.Devices.Value {
		driver := device.Driver
		switch {
		case device.Name == address:
			own = driver
		case !driver.Known:
			neighbours = driver.Err
		case leavesDMA(driver.Value):
		case bridges[device.Name]:
			neighbours = fmt.Sprintf("%s: whether %s on a bridge is in the way depends on the kernel", driver.Source, driver.Value)
		default:
			candidate.Offenders = append(candidate.Offenders, fmt.Sprintf("%s (%s)", device.Name, driver.Value))
		}
	}
	candidate.Driver, candidate.Bound = own.Value, strings.Contains(own.Value, "vfio")
	source := group.Devices.Source
	switch {
	case !own.Known: // perhaps it is bound to VFIO
		candidate.Viable = Reading[bool]{Source: source, Err: own.Err}
		return candidate, true
	case len(candidate.Offenders) > 0: // no, whatever the others are
		candidate.Viable = known(source, false)
	case neighbours != "":
		candidate.Viable = Reading[bool]{Source: source, Err: neighbours}
	default:
		candidate.Viable = known(source, true)
	}
	return candidate, kind != kindOther || candidate.Bound
}

// leavesDMA knows the drivers that the kernel accepts beside a device in a
// VM's hands: VFIO's own (vfio-pci, mlx5_vfio_pci, nvgrace-gpu-vfio-pci, …),
// pci-stub, that of PCIe ports, and none at all.
func leavesDMA(driver string) bool {
	return driver == "" || driver == "pci-stub" || driver == "pcieport" || strings.Contains(driver, "vfio")
}
