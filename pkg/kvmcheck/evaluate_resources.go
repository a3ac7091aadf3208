package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
)

// evaluateHugepages gives a finding per page size.
func evaluateHugepages(facts Facts) []Finding {
	const area, check = "memory", "hugepages"
	pools := facts.Memory.Hugepages
	if !pools.Known {
		return []Finding{undecided(area, check, Optional, pools.Err)}
	}
	if len(pools.Value) == 0 {
		return []Finding{lacking(area, check, Optional, HugepagesUnsupported, pools.Source+" lists no page size",
			"only for VMs with huge pages: boot a kernel with CONFIG_HUGETLBFS")}
	}
	findings := make([]Finding, 0, len(pools.Value))
	for _, pool := range pools.Value {
		findings = append(findings, evaluatePool(facts, pool))
	}
	return findings
}

func evaluatePool(facts Facts, pool HugepagePool) Finding {
	const area = "memory"
	check := "hugepages-" + sizeName(pool.SizeKiB)
	for _, count := range []Reading[uint64]{pool.Total, pool.Free} {
		if !count.Known {
			return undecided(area, check, Optional, count.Err)
		}
	}
	switch {
	case pool.Total.Value == 0:
		return lacking(area, check, Optional, NoHugepages, pool.Total.Source+" is 0",
			fmt.Sprintf("only for VMs with %s pages: echo N > %s, or hugepagesz=%s hugepages=N on the kernel command line",
				sizeName(pool.SizeKiB), pool.Total.Source, strings.TrimSuffix(sizeName(pool.SizeKiB), "i")))
	case pool.Free.Value == 0:
		return lacking(area, check, Optional, NoHugepagesFree, fmt.Sprintf("%s is 0: all %d pages are taken", pool.Free.Source, pool.Total.Value),
			"move VMs away or raise "+pool.Total.Source)
	default:
		return found(area, check, Optional, fmt.Sprintf("%d of %d free%s", pool.Free.Value, pool.Total.Value, perNode(facts, pool.SizeKiB)))
	}
}

// sizeName writes 2048 as "2Mi" and 1048576 as "1Gi", as Kubernetes does.
func sizeName(kib uint64) string {
	switch {
	case kib >= 1<<20 && kib%(1<<20) == 0:
		return fmt.Sprintf("%dGi", kib>>20)
	case kib >= 1<<10 && kib%(1<<10) == 0:
		return fmt.Sprintf("%dMi", kib>>10)
	default:
		return fmt.Sprintf("%dKi", kib)
	}
}

// perNode says how many pages are free on each NUMA node, if there are several.
func perNode(facts Facts, sizeKiB uint64) string {
	nodes := facts.Memory.NUMA.Value
	if len(nodes) < 2 {
		return ""
	}
	var parts []string
	for _, node := range nodes {
		for _, pool := range node.Hugepages {
			switch {
			case pool.SizeKiB != sizeKiB:
			case pool.Free.Known:
				parts = append(parts, fmt.Sprintf("node %d: %d", node.ID, pool.Free.Value))
			default:
				parts = append(parts, fmt.Sprintf("node %d: unknown", node.ID))
			}
		}
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func evaluateIOMMUTable(facts Facts) Finding {
	const area, check = "iommu", "firmware"
	tables := facts.IOMMU.Tables
	switch {
	case !tables.Known:
		return undecided(area, check, Optional, tables.Err)
	case len(tables.Value) > 0:
		return found(area, check, Optional, "ACPI table "+strings.Join(tables.Value, ", "))
	case facts.IOMMU.Groups.Known && facts.IOMMU.Groups.Value > 0:
		return found(area, check, Optional, "described outside ACPI: the kernel has IOMMU groups")
	default:
		return lacking(area, check, Optional, IOMMUNotInFirmware, tables.Source+" has no DMAR, IVRS, IORT, VIOT or RIMT",
			"only to pass devices to VMs: enable VT-d or AMD-Vi (IOMMU) in the firmware setup; a VM needs a virtual IOMMU from its hypervisor")
	}
}

func evaluateIOMMU(facts Facts) Finding {
	const area, check = "iommu", "kernel"
	groups, tables := facts.IOMMU.Groups, facts.IOMMU.Tables
	switch {
	case !groups.Known:
		return undecided(area, check, Optional, groups.Err)
	case groups.Value > 0:
		return found(area, check, Optional, fmt.Sprintf("%d groups", groups.Value))
	case tables.Known && len(tables.Value) > 0:
		return lacking(area, check, Optional, IOMMUDisabled,
			fmt.Sprintf("%s is empty, although firmware has %s; kernel command line: %s", groups.Source, strings.Join(tables.Value, ", "), cmdline(facts)),
			"only to pass devices to VMs: boot with "+iommuParameter(facts))
	default:
		return lacking(area, check, Optional, IOMMUAbsent, groups.Source+" is empty", "see iommu/firmware")
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
		return undecided(area, check, Optional, driver.Err)
	case driver.Value:
		return found(area, check, Optional, "vfio-pci is registered"+vfioNodes(facts.VFIO))
	default:
		return lacking(area, check, Optional, ModuleNotLoaded, driver.Source+" does not exist", "only to pass devices to VMs: modprobe vfio-pci")
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
		return undecided(area, check, Optional, pfs.Err)
	}
	if len(pfs.Value) == 0 {
		return lacking(area, check, Optional, NoSRIOVDevice, pfs.Source+": no device has sriov_totalvfs",
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
	return found(area, check, Optional, message)
}

// evaluateCgroup wants the controllers with which VMs are limited: on version
// 2 devices and CPU accounting are part of the core.
func evaluateCgroup(facts Facts) Finding {
	const area, check = "cgroup", "controllers"
	version, controllers := facts.Cgroup.Version, facts.Cgroup.Controllers
	if !version.Known {
		return undecided(area, check, Recommended, version.Err)
	}
	if !controllers.Known {
		return undecided(area, check, Recommended, controllers.Err)
	}
	want := []string{"cpu", "cpuset", "memory", "io"}
	if version.Value == 1 {
		want = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "blkio"}
	}
	var missing []string
	for _, controller := range want {
		if !slices.Contains(controllers.Value, controller) {
			missing = append(missing, controller)
		}
	}
	switch {
	case version.Value == 0:
		return lacking(area, check, Recommended, CgroupNotMounted, "no cgroup hierarchy at "+cgroupDir,
			"mount -t cgroup2 none "+cgroupDir+"; in a container: mount the host's "+cgroupDir)
	case len(missing) > 0:
		return lacking(area, check, Recommended, ControllerMissing,
			fmt.Sprintf("%s (version %d) lacks %s", controllers.Source, version.Value, strings.Join(missing, ", ")),
			"boot a kernel with these controllers, and without cgroup_disable= on its command line")
	default:
		return found(area, check, Recommended, fmt.Sprintf("version %d: %s", version.Value, strings.Join(want, ", ")))
	}
}
