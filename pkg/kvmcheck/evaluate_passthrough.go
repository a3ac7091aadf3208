package kvmcheck

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

func evaluateIOMMUTable(facts Facts) Finding {
	const area, check = "iommu", "firmware"
	tables, groups := facts.IOMMU.Tables, isolatingGroups(facts)
	switch {
	case !tables.Known:
		return undecided(area, check, tables.Err)
	case len(tables.Value) > 0:
		return found(area, check, "ACPI table "+strings.Join(tables.Value, ", "))
	case !groups.Known:
		return undecided(area, check, groups.Err)
	case groups.Value > 0:
		return found(area, check, "described outside ACPI: the kernel has IOMMU groups")
	default:
		return lacking(area, check, IOMMUNotInFirmware, tables.Source+" has no DMAR, IVRS, IORT, VIOT or RIMT",
			"only to pass devices to VMs: enable VT-d or AMD-Vi (IOMMU) in the firmware setup; a VM needs a virtual IOMMU from its hypervisor")
	}
}

func evaluateIOMMU(facts Facts) Finding {
	const area, check = "iommu", "kernel"
	groups, tables := isolatingGroups(facts), facts.IOMMU.Tables
	empty := iommuGroups + " is empty"
	if len(facts.IOMMU.Groups.Value) > 0 {
		empty = iommuGroups + " has only groups of VFIO's no-IOMMU mode, which isolate nothing"
	}
	switch {
	case !groups.Known:
		return undecided(area, check, groups.Err)
	case groups.Value > 0:
		return found(area, check, plural(groups.Value, "group"))
	case tables.Known && len(tables.Value) > 0:
		return lacking(area, check, IOMMUDisabled,
			fmt.Sprintf("%s, although firmware has %s; kernel command line: %s", empty, strings.Join(tables.Value, ", "), cmdline(facts)),
			"only to pass devices to VMs: boot with "+iommuParameter(facts))
	default:
		return lacking(area, check, IOMMUAbsent, empty, "see iommu/firmware")
	}
}

// isolatingGroups counts the groups that an IOMMU stands behind: VFIO's
// no-IOMMU mode makes groups too.
func isolatingGroups(facts Facts) Reading[int] {
	groups, units, noIOMMU := facts.IOMMU.Groups, facts.IOMMU.Units, facts.VFIO.NoIOMMU
	switch {
	case !groups.Known:
		return Reading[int]{Source: groups.Source, Err: groups.Err}
	case len(groups.Value) == 0, len(units.Value) > 0, noIOMMU.Known && !noIOMMU.Value:
		return known(groups.Source, len(groups.Value))
	case !units.Known:
		return Reading[int]{Source: units.Source, Err: units.Err}
	case !noIOMMU.Known:
		return Reading[int]{Source: noIOMMU.Source, Err: noIOMMU.Err}
	default:
		return known(groups.Source, 0)
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
	driver, container, iommufd := facts.VFIO.Driver, facts.VFIO.Container, facts.VFIO.IOMMUFD
	switch {
	case !driver.Known:
		return undecided(area, check, driver.Err)
	case !driver.Value:
		return lacking(area, check, ModuleNotLoaded, driver.Source+" does not exist", "only to pass devices to VMs: modprobe vfio-pci")
	case container.Value || iommufd.Value:
		return found(area, check, "vfio-pci is registered"+vfioNodes(facts.VFIO))
	case !container.Known || !iommufd.Known:
		return undecided(area, check, cmp.Or(container.Err, iommufd.Err))
	default:
		return lacking(area, check, DeviceMissing,
			fmt.Sprintf("vfio-pci is registered, but neither %s nor %s exists", container.Source, iommufd.Source),
			"modprobe vfio_iommu_type1; in a container: mount the host's /dev/vfio")
	}
}

// evaluateRemapping asks whether a device can forge interrupts: VFIO refuses
// devices whose interrupts are not remapped.
func evaluateRemapping(facts Facts) Finding {
	const area, check = "iommu", "interrupts"
	chip, groups := facts.IOMMU.Remapping.Chip, isolatingGroups(facts)
	switch {
	case !chip.Known:
		return undecided(area, check, chip.Err)
	case remapping(chip.Value) == Ready:
		return found(area, check, "checked by the interrupt chip "+chip.Value)
	case remapping(chip.Value) == Unknown:
		return Finding{
			Area: area, Check: check, Status: Unknown, Reason: RemappingUndefined,
			Message: chip.Source + ": no interrupt chip of this platform tells",
		}
	case !groups.Known:
		return undecided(area, check, groups.Err)
	case groups.Value == 0:
		return withoutIOMMU(facts, area, check, fmt.Sprintf("%s is %s: not remapped", chip.Source, chip.Value))
	default:
		return lacking(area, check, InterruptRemappingOff,
			fmt.Sprintf("%s is %s, not IR-%s; %skernel command line: %s", chip.Source, chip.Value, chip.Value, remappingHints(facts.IOMMU.Remapping), cmdline(facts)),
			remappingRemedy(facts))
	}
}

// withoutIOMMU is a finding whose cause is that of iommu/kernel.
func withoutIOMMU(facts Facts, area, check, message string) Finding {
	return lacking(area, check, evaluateIOMMU(facts).Reason, message+", and no IOMMU is in use", "see iommu/kernel")
}

// remappingHints says what the IOMMUs could, and whether VFIO is told to
// accept less.
func remappingHints(facts RemappingFacts) string {
	var hints strings.Builder
	for _, unit := range slices.Sorted(maps.Keys(facts.Capable)) {
		if capable := facts.Capable[unit]; capable.Known && !capable.Value {
			fmt.Fprintf(&hints, "%s cannot remap; ", unit)
		}
	}
	for _, module := range slices.Sorted(maps.Keys(facts.Unsafe)) {
		if unsafe := facts.Unsafe[module]; unsafe.Known && unsafe.Value {
			fmt.Fprintf(&hints, "%s passes devices all the same (allow_unsafe_interrupts); ", module)
		}
	}
	return hints.String()
}

func remappingRemedy(facts Facts) string {
	for _, parameter := range facts.IOMMU.CmdLine.Value {
		if parameter == "nointremap" || parameter == "intremap=off" {
			return "remove " + parameter + " from the kernel command line"
		}
	}
	return "enable interrupt remapping or x2APIC in the firmware setup; a VM needs it from its hypervisor (QEMU: intremap=on); dmesg | grep -iE 'remap|DMAR|AMD-Vi' says why"
}

// namedCandidates bounds a message; facts have them all.
const namedCandidates = 2

// evaluateCandidates wants every device that is bound to VFIO in a viable
// group, and when none is bound, one that could be.
func evaluateCandidates(facts Facts) Finding {
	const area, check = "vfio", "groups"
	candidates, groups := facts.VFIO.Candidates, isolatingGroups(facts)
	switch {
	case !candidates.Known:
		return undecided(area, check, candidates.Err)
	case len(candidates.Value) == 0:
		return lacking(area, check, NoPassthroughDevice, "no VF, GPU or NVMe disk, and nothing is bound to VFIO",
			"only to pass devices to VMs: make VFs, or bind a device to vfio-pci")
	case !groups.Known:
		return undecided(area, check, groups.Err)
	case groups.Value == 0:
		return withoutIOMMU(facts, area, check, plural(len(candidates.Value), "candidate device"))
	}
	var viable, bound int
	var failing, failingBound []Candidate
	unread := ""
	for _, candidate := range candidates.Value {
		if candidate.Bound {
			bound++
		}
		switch {
		case !candidate.Viable.Known:
			unread = cmp.Or(unread, candidate.Viable.Err)
		case candidate.Viable.Value:
			viable++
		default:
			failing = append(failing, candidate)
			if candidate.Bound {
				failingBound = append(failingBound, candidate)
			}
		}
	}
	message := fmt.Sprintf("%d of %s viable", viable, plural(len(candidates.Value), "candidate device"))
	if bound > 0 {
		message += fmt.Sprintf(", %d bound to VFIO", bound)
	}
	switch {
	case len(failingBound) > 0:
		return lacking(area, check, GroupNotViable, message+obstacles(failingBound), groupRemedy(failingBound[0]))
	case unread != "":
		return undecided(area, check, message+"; "+unread)
	case viable == 0:
		return lacking(area, check, GroupNotViable, message+obstacles(failing), groupRemedy(failing[0]))
	default:
		return found(area, check, message+obstacles(failing))
	}
}

// obstacles names what is in the way of the first few.
func obstacles(failing []Candidate) string {
	var text strings.Builder
	for i, candidate := range failing {
		if i == namedCandidates {
			fmt.Fprintf(&text, "; and %d more not viable", len(failing)-i)
			break
		}
		switch {
		case candidate.Group == nil:
			fmt.Fprintf(&text, "; %s is in no IOMMU group", candidate.Address)
		case len(candidate.Offenders) == 1:
			fmt.Fprintf(&text, "; %s shares group %d with %s", candidate.Address, *candidate.Group, candidate.Offenders[0])
		default:
			fmt.Fprintf(&text, "; %s shares group %d with %s and %d more", candidate.Address, *candidate.Group, candidate.Offenders[0], len(candidate.Offenders)-1)
		}
	}
	return text.String()
}

func groupRemedy(candidate Candidate) string {
	if len(candidate.Offenders) == 0 {
		return "look in dmesg for why the IOMMU leaves " + candidate.Address + " out"
	}
	offender, _, _ := strings.Cut(candidate.Offenders[0], " ")
	return fmt.Sprintf("driverctl set-override %s vfio-pci binds the neighbour too, if the host can do without it; else move the device to a slot whose ports have ACS", offender)
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
