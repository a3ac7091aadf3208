package kvmcheck

import (
	"errors"
	"path"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	iommuGroups = "/sys/kernel/iommu_groups"
	iommuUnits  = "/sys/class/iommu"
	firmwareDir = "/sys/firmware"
	acpiTables  = "/sys/firmware/acpi/tables"
)

// collectIOMMU reads what firmware and kernel say about the IOMMU.
func collectIOMMU(root *hostfs.Root) IOMMUFacts {
	facts := IOMMUFacts{
		Tables: collectIOMMUTables(root),
		Units:  listOrNone(root, iommuUnits),
	}
	groups := listOrNone(root, iommuGroups)
	facts.Groups = Reading[int]{Value: len(groups.Value), Known: groups.Known, Source: groups.Source, Err: groups.Err}
	const source = "/proc/cmdline"
	line, err := root.ReadString(source)
	facts.CmdLine = reading(source, parseIOMMUParameters(line), err)
	return facts
}

// collectIOMMUTables looks for the ACPI tables that describe an IOMMU: DMAR
// (Intel), IVRS (AMD), IORT (Arm), VIOT (virtio), RIMT (RISC-V).
func collectIOMMUTables(root *hostfs.Root) Reading[[]string] {
	// An empty /sys/firmware is one that a container runtime has masked.
	firmware, err := root.ReadDir(firmwareDir)
	if err != nil && !hostfs.Absent(err) {
		return unknown[[]string](firmwareDir, err)
	}
	if err == nil && len(firmware) == 0 {
		return unknown[[]string](firmwareDir, errors.New("it is empty, as in a container without privileges"))
	}
	found := []string{}
	for _, table := range []string{"DMAR", "IVRS", "IORT", "VIOT", "RIMT"} {
		there, err := root.Exists(path.Join(acpiTables, table))
		if err != nil {
			return unknown[[]string](acpiTables, err)
		}
		if there {
			found = append(found, table)
		}
	}
	return known(acpiTables, found)
}

// listOrNone lists a directory that a kernel without the feature does not have.
func listOrNone(root *hostfs.Root, dir string) Reading[[]string] {
	names, err := root.ReadDir(dir)
	if hostfs.Absent(err) {
		return known(dir, []string{})
	}
	return reading(dir, names, err)
}

func collectVFIO(root *hostfs.Root) VFIOFacts {
	return VFIOFacts{
		Driver:    collectExists(root, "/sys/bus/pci/drivers/vfio-pci"),
		Container: collectExists(root, "/dev/vfio/vfio"),
		IOMMUFD:   collectExists(root, "/dev/iommu"),
	}
}

func collectExists(root *hostfs.Root, name string) Reading[bool] {
	there, err := root.Exists(name)
	return reading(name, there, err)
}
