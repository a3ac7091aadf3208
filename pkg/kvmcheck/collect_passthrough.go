package kvmcheck

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	iommuGroups = "/sys/kernel/iommu_groups"
	iommuUnits  = "/sys/class/iommu"
	firmwareDir = "/sys/firmware"
	acpiTables  = "/sys/firmware/acpi/tables"
	irqDir      = "/sys/kernel/irq"
)

// collectIOMMU reads what firmware and kernel say about the IOMMU.
func collectIOMMU(root *hostfs.Root) IOMMUFacts {
	facts := IOMMUFacts{
		Tables: collectIOMMUTables(root),
		Units:  listOrNone(root, iommuUnits),
	}
	facts.Groups = collectGroups(root)
	facts.Remapping = collectRemapping(root, facts.Units.Value)
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

// collectGroups reads /sys/kernel/iommu_groups (Linux
// Documentation/ABI/testing/sysfs-kernel-iommu_groups).
func collectGroups(root *hostfs.Root) Reading[[]IOMMUGroup] {
	names := listOrNone(root, iommuGroups)
	if !names.Known {
		return Reading[[]IOMMUGroup]{Source: names.Source, Err: names.Err}
	}
	groups := make([]IOMMUGroup, 0, len(names.Value))
	for _, name := range names.Value {
		id, err := strconv.Atoi(name)
		if err != nil {
			return unknown[[]IOMMUGroup](iommuGroups, fmt.Errorf("group %.20q is not a number", name))
		}
		dir := path.Join(iommuGroups, name)
		kind, err := root.ReadString(path.Join(dir, "type"))
		groups = append(groups, IOMMUGroup{
			ID:      id,
			Type:    reading(path.Join(dir, "type"), kind, err),
			Devices: collectGroupDevices(root, path.Join(dir, "devices")),
		})
	}
	slices.SortFunc(groups, func(a, b IOMMUGroup) int { return cmp.Compare(a.ID, b.ID) })
	return known(iommuGroups, groups)
}

func collectGroupDevices(root *hostfs.Root, dir string) Reading[[]GroupDevice] {
	names, err := root.ReadDir(dir)
	if err != nil {
		return unknown[[]GroupDevice](dir, err)
	}
	devices := make([]GroupDevice, 0, len(names))
	for _, name := range names {
		source := path.Join(dir, name, "driver")
		device := GroupDevice{Name: name, Driver: known(source, "")}
		target, err := root.ReadLink(source)
		if !hostfs.Absent(err) {
			device.Driver = reading(source, path.Base(target), err)
		}
		devices = append(devices, device)
	}
	return known(dir, devices)
}

// collectRemapping looks at the interrupts in their order until one's chip
// tells (Linux Documentation/ABI/testing/sysfs-kernel-irq). It is the same
// for all: a kernel that cannot remap the interrupts of some, remaps none.
func collectRemapping(root *hostfs.Root, units []string) RemappingFacts {
	facts := RemappingFacts{
		Chip:    collectChip(root),
		Capable: make(map[string]Reading[bool]),
		Unsafe:  make(map[string]Reading[bool]),
	}
	for _, unit := range units {
		source := path.Join(iommuUnits, unit, "intel-iommu/ecap")
		text, err := root.ReadString(source)
		if hostfs.Absent(err) {
			continue // of another vendor
		}
		capable := false
		if err == nil {
			capable, err = parseRemappingCapability(text)
		}
		facts.Capable[unit] = reading(source, capable, err)
	}
	for _, module := range []string{"vfio_iommu_type1", "iommufd"} {
		source := path.Join(modulesDir, module, "parameters/allow_unsafe_interrupts")
		unsafe, err := root.ReadBool(source)
		if !hostfs.Absent(err) {
			facts.Unsafe[module] = reading(source, unsafe, err)
		}
	}
	return facts
}

func collectChip(root *hostfs.Root) Reading[string] {
	names, err := root.ReadDir(irqDir)
	if err != nil {
		return unknown[string](irqDir, err)
	}
	byNumber := slices.SortedFunc(slices.Values(names), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
	failed := Reading[string]{} // the first that could not be read
	for _, name := range byNumber {
		source := path.Join(irqDir, name, "chip_name")
		chip, err := root.ReadString(source)
		switch {
		case err == nil && remapping(chip) != Unknown:
			return known(source, chip)
		case err != nil && failed.Err == "":
			failed = unknown[string](source, err)
		}
	}
	if failed.Err != "" {
		return failed
	}
	return known(irqDir, "")
}

func collectVFIO(root *hostfs.Root) VFIOFacts {
	return VFIOFacts{
		Modules:   collectVFIOModules(root),
		Driver:    collectExists(root, "/sys/bus/pci/drivers/vfio-pci"),
		Container: collectExists(root, "/dev/vfio/vfio"),
		IOMMUFD:   collectExists(root, "/dev/iommu"),
		NoIOMMU:   orZero(root.ReadBool, path.Join(modulesDir, "vfio/parameters/enable_unsafe_noiommu_mode")),
	}
}

// collectVFIOModules lists VFIO's modules, loaded, or built in with parameters.
func collectVFIOModules(root *hostfs.Root) Reading[[]string] {
	names, err := root.ReadDir(modulesDir)
	if err != nil {
		return unknown[[]string](modulesDir, err)
	}
	modules := []string{}
	for _, name := range names {
		if strings.Contains(name, "vfio") || name == "iommufd" {
			modules = append(modules, name)
		}
	}
	return known(modulesDir, modules)
}

func collectExists(root *hostfs.Root, name string) Reading[bool] {
	there, err := root.Exists(name)
	return reading(name, there, err)
}
