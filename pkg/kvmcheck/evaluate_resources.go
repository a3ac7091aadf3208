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
		return []Finding{undecided(area, check, pools.Err)}
	}
	if len(pools.Value) == 0 {
		return []Finding{lacking(area, check, HugepagesUnsupported, pools.Source+" lists no page size",
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
			return undecided(area, check, count.Err)
		}
	}
	switch {
	case pool.Total.Value == 0:
		return lacking(area, check, NoHugepages, pool.Total.Source+" is 0",
			fmt.Sprintf("only for VMs with %s pages: echo N > %s, or hugepagesz=%s hugepages=N on the kernel command line",
				sizeName(pool.SizeKiB), pool.Total.Source, strings.TrimSuffix(sizeName(pool.SizeKiB), "i")))
	case pool.Free.Value == 0:
		return lacking(area, check, NoHugepagesFree, fmt.Sprintf("%s is 0: all %d pages are taken", pool.Free.Source, pool.Total.Value),
			"move VMs away or raise "+pool.Total.Source)
	default:
		return found(area, check, fmt.Sprintf("%d of %d free%s", pool.Free.Value, pool.Total.Value, perNode(facts, pool.SizeKiB)))
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

// evaluateCgroup wants the controllers with which VMs are limited: on version
// 2 devices and CPU accounting are part of the core.
func evaluateCgroup(facts Facts) Finding {
	const area, check = "cgroup", "controllers"
	version, controllers := facts.Cgroup.Version, facts.Cgroup.Controllers
	if !version.Known {
		return undecided(area, check, version.Err)
	}
	if !controllers.Known {
		return undecided(area, check, controllers.Err)
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
		return lacking(area, check, CgroupNotMounted, "no cgroup hierarchy at "+cgroupDir,
			"mount -t cgroup2 none "+cgroupDir+"; in a container: mount the host's "+cgroupDir)
	case len(missing) > 0:
		return lacking(area, check, ControllerMissing,
			fmt.Sprintf("%s (version %d) lacks %s", controllers.Source, version.Value, strings.Join(missing, ", ")),
			"boot a kernel with these controllers, and without cgroup_disable= on its command line")
	default:
		return found(area, check, fmt.Sprintf("version %d: %s", version.Value, strings.Join(want, ", ")))
	}
}
