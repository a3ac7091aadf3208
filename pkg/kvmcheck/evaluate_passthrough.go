package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
)

func evaluateIOMMUTable(facts Facts) Finding {
	const area, check = "iommu", "firmware"
	tables := facts.IOMMU.Tables
	switch {
	case !tables.Known:
		return undecided(area, check, tables.Err)
	case len(tables.Value) > 0:
		return found(area, check, "ACPI table "+strings.Join(tables.Value, ", "))
	case facts.IOMMU.Groups.Known && facts.IOMMU.Groups.Value > 0:
		return found(area, check, "described outside ACPI: the kernel has IOMMU groups")
	case !facts.IOMMU.Groups.Known: // they would show an IOMMU outside ACPI
		return undecided(area, check, facts.IOMMU.Groups.Err)
	default:
		return lacking(area, check, IOMMUNotInFirmware, tables.Source+" has no DMAR, IVRS, IORT, VIOT or RIMT",
			"only to pass devices to VMs: enable VT-d or AMD-Vi (IOMMU) in the firmware setup; a VM needs a virtual IOMMU from its hypervisor")
	}
}

func evaluateIOMMU(facts Facts) Finding {
	const area, check = "iommu", "kernel"
	groups, tables := facts.IOMMU.Groups, facts.IOMMU.Tables
	switch {
	case !groups.Known:
		return undecided(area, check, groups.Err)
	case groups.Value > 0:
		return found(area, check, fmt.Sprintf("%d groups", groups.Value))
	case tables.Known && len(tables.Value) > 0:
		return lacking(area, check, IOMMUDisabled,
			fmt.Sprintf("%s is empty, although firmware has %s; kernel command line: %s", groups.Source, strings.Join(tables.Value, ", "), cmdline(facts)),
			"only to pass devices to VMs: boot with "+iommuParameter(facts))
	default:
		return lacking(area, check, IOMMUAbsent, groups.Source+" is empty", "see iommu/firmware")
	}
}

func cmdline(facts Facts) string {
	switch line := facts.IOMMU.CmdLine; {
	case !line.Known:
		return "unknown (" + line.Err + ")"
	case len(line.Value) == 0:
		return "no IOMMU parameter"
	default:
		return strings.Join(line.Value, " ")
	}
}

func iommuParameter(facts Facts) string {
	switch {
	case slices.Contains(facts.IOMMU.Tables.Value, "DMAR"):
		return "intel_iommu=on iommu=pt, and without intel_iommu=off"
	case slices.Contains(facts.IOMMU.Tables.Value, "IVRS"):
		return "iommu=pt, and without amd_iommu=off"
	default:
		return "a kernel that has this IOMMU's driver"
	}
}

func evaluateVFIO(facts Facts) Finding {
	const area, check = "vfio", "driver"
	driver := facts.VFIO.Driver
	switch {
	case !driver.Known:
		return undecided(area, check, driver.Err)
	case driver.Value:
		return found(area, check, "vfio-pci is registered"+vfioNodes(facts.VFIO))
	default:
		return lacking(area, check, ModuleNotLoaded, driver.Source+" does not exist", "only to pass devices to VMs: modprobe vfio-pci")
	}
}

func vfioNodes(facts VFIOFacts) string {
	var nodes []string
	for _, node := range []Reading[bool]{facts.Container, facts.IOMMUFD} {
		if node.Known && node.Value {
			nodes = append(nodes, node.Source)
		}
	}
	if len(nodes) == 0 {
		return ""
	}
	return "; " + strings.Join(nodes, ", ")
}

func evaluateSRIOV(facts Facts) Finding {
	const area, check = "sriov", "capability"
	pfs := facts.SRIOV.PFs
	if !pfs.Known {
		return undecided(area, check, pfs.Err)
	}
	if len(pfs.Value) == 0 {
		return lacking(area, check, NoSRIOVDevice, pfs.Source+": no device has sriov_totalvfs",
			"only for VMs with VFs: use a NIC with SR-IOV, enable it in the NIC's and the machine's firmware, and load the NIC's driver")
	}
	var parts []string
	for _, pf := range pfs.Value {
		text := fmt.Sprintf("%s: %d of %d VFs", pf.Address, pf.NumVFs, pf.TotalVFs)
		if pf.NUMANode != nil {
			text += fmt.Sprintf(" on node %d", *pf.NUMANode)
		}
		parts = append(parts, text)
	}
	message := strings.Join(parts, "; ")
	if pfs.Err != "" {
		message += "; not all devices could be read: " + pfs.Err
	}
	return found(area, check, message)
}
