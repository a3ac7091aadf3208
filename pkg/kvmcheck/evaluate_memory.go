package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
)

func evaluateMemory(facts Facts) []Finding {
	return append(evaluateHugepages(facts),
		evaluateBalance(facts),
		evaluateNUMA(facts),
		evaluateTHP(facts),
		evaluateKSM(facts),
		evaluateOvercommit(facts),
		evaluateSwap(facts),
	)
}

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
	counts := []Reading[uint64]{pool.Total, pool.Free}
	var reserved uint64
	if pool.Reserved != nil {
		counts = append(counts, *pool.Reserved)
		reserved = pool.Reserved.Value
	}
	for _, count := range counts {
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
	case pool.Free.Value <= reserved:
		return lacking(area, check, NoHugepagesFree,
			fmt.Sprintf("%s is %d: all free pages of %d are reserved by processes", pool.Reserved.Source, reserved, pool.Total.Value),
			"move VMs away or raise "+pool.Total.Source)
	case reserved > 0:
		return found(area, check, fmt.Sprintf("%d of %d free%s; %d of them are reserved, the kernel does not say on which node",
			pool.Free.Value, pool.Total.Value, perNode(facts, pool.SizeKiB), reserved))
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
		if !node.Hugepages.Known {
			parts = append(parts, fmt.Sprintf("node %d: unknown", node.ID))
		}
		for _, pool := range node.Hugepages.Value {
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

// evaluateBalance compares the huge pages of the NUMA nodes on which VMs run.
func evaluateBalance(facts Facts) Finding {
	const area, check = "memory", "balance"
	pools := facts.Memory.Hugepages
	if !pools.Known {
		return undecided(area, check, pools.Err)
	}
	nodes := nodesOfVMs(facts.Memory.NUMA)
	if !nodes.Known {
		return undecided(area, check, nodes.Err)
	}
	if len(nodes.Value) < 2 {
		return found(area, check, "one NUMA node has all CPUs and memory")
	}
	var even, lopsided []string
	for _, pool := range pools.Value {
		counts := pagesPerNode(nodes.Value, pool.SizeKiB)
		if !counts.Known {
			return undecided(area, check, counts.Err)
		}
		size := sizeName(pool.SizeKiB)
		least, most := slices.Min(counts.Value), slices.Max(counts.Value)
		switch {
		case most == 0:
		case least < most-most/2:
			lopsided = append(lopsided, lopsidedPages(size, nodes.Value, counts.Value))
		default:
			even = append(even, fmt.Sprintf("%s %s", size, strings.Trim(strings.ReplaceAll(fmt.Sprint(counts.Value), " ", "+"), "[]")))
		}
	}
	switch {
	case len(lopsided) > 0:
		return lacking(area, check, HugepagesLopsided, strings.Join(lopsided, "; "),
			"set the same count on each node: echo N > "+nodesDir+"/nodeK/hugepages/hugepages-SIZEkB/nr_hugepages, or hugepages=0:N,1:N on the kernel command line")
	case len(even) > 0:
		return found(area, check, fmt.Sprintf("over %d NUMA nodes: %s", len(nodes.Value), strings.Join(even, ", ")))
	default:
		return found(area, check, fmt.Sprintf("none of %d NUMA nodes has huge pages", len(nodes.Value)))
	}
}

// nodesOfVMs are the nodes with both CPUs and memory: on one of memory alone
// (CXL, HBM) no VM runs, and one without memory has no page to give.
func nodesOfVMs(numa Reading[[]NUMANode]) Reading[[]NUMANode] {
	if !numa.Known {
		return numa
	}
	var nodes []NUMANode
	for _, node := range numa.Value {
		switch {
		case !node.CPUs.Known:
			return Reading[[]NUMANode]{Source: node.CPUs.Source, Err: node.CPUs.Err}
		case !node.MemoryKiB.Known:
			return Reading[[]NUMANode]{Source: node.MemoryKiB.Source, Err: node.MemoryKiB.Err}
		case node.CPUs.Value != "" && node.MemoryKiB.Value > 0:
			nodes = append(nodes, node)
		}
	}
	return known(numa.Source, nodes)
}

// pagesPerNode gives each node's total of one size.
func pagesPerNode(nodes []NUMANode, sizeKiB uint64) Reading[[]uint64] {
	counts := make([]uint64, len(nodes))
	for i, node := range nodes {
		if !node.Hugepages.Known {
			return Reading[[]uint64]{Source: node.Hugepages.Source, Err: node.Hugepages.Err}
		}
		for _, pool := range node.Hugepages.Value {
			switch {
			case pool.SizeKiB != sizeKiB:
			case !pool.Total.Known:
				return Reading[[]uint64]{Source: pool.Total.Source, Err: pool.Total.Err}
			default:
				counts[i] = pool.Total.Value
			}
		}
	}
	return known(nodesDir, counts)
}

func lopsidedPages(size string, nodes []NUMANode, counts []uint64) string {
	var parts []string
	having := 0
	only := 0
	for i, count := range counts {
		parts = append(parts, fmt.Sprintf("node %d: %d", nodes[i].ID, count))
		if count > 0 {
			having++
			only = nodes[i].ID
		}
	}
	where := "spread unevenly"
	if having == 1 {
		where = fmt.Sprintf("on node %d only", only)
	}
	return fmt.Sprintf("%s pages are %s (%s)", size, where, strings.Join(parts, ", "))
}

// listedNodes bounds a message: larger machines are summed up.
const listedNodes = 4

// evaluateNUMA tells the machine's shape; no shape is wrong.
func evaluateNUMA(facts Facts) Finding {
	const area, check = "memory", "numa"
	numa := facts.Memory.NUMA
	if !numa.Known {
		return undecided(area, check, numa.Err)
	}
	if len(numa.Value) == 0 {
		return found(area, check, "the kernel has no NUMA: all memory is equally near")
	}
	var parts []string
	farthest := 0
	for _, node := range numa.Value {
		for _, failure := range []string{node.CPUs.Err, node.MemoryKiB.Err, node.Distances.Err} {
			if failure != "" {
				return undecided(area, check, failure)
			}
		}
		farthest = max(farthest, slices.Max(append(node.Distances.Value, 0)))
		if text := nodeShape(node); len(numa.Value) <= listedNodes || node.CPUs.Value == "" || node.MemoryKiB.Value == 0 {
			parts = append(parts, text)
		}
	}
	message := "1 node"
	if len(numa.Value) > 1 {
		message = fmt.Sprintf("%d nodes, distance up to %d", len(numa.Value), farthest)
	}
	if len(parts) > 0 {
		message += ": " + strings.Join(parts, "; ")
	}
	return found(area, check, message)
}

func nodeShape(node NUMANode) string {
	cpus, _ := parseCPUList(node.CPUs.Value) // collected only when it parses
	switch {
	case cpus == 0:
		return fmt.Sprintf("node %d has %s and no CPU", node.ID, gib(node.MemoryKiB.Value))
	case node.MemoryKiB.Value == 0:
		return fmt.Sprintf("node %d has %s and no memory", node.ID, plural(cpus, "CPU"))
	default:
		return fmt.Sprintf("node %d has %s, %s", node.ID, plural(cpus, "CPU"), gib(node.MemoryKiB.Value))
	}
}

func plural(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", count, noun)
}

func gib(kib uint64) string { return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20)) }

func evaluateTHP(facts Facts) Finding {
	const area, check = "memory", "thp"
	thp, defrag := facts.Memory.Policy.THP, facts.Memory.Policy.THPDefrag
	switch {
	case !thp.Known:
		return undecided(area, check, thp.Err)
	case thp.Value == "":
		return lacking(area, check, THPDisabled, thp.Source+" does not exist", "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE")
	case thp.Value == "never":
		return lacking(area, check, THPDisabled, thp.Source+" is never: VMs without huge pages of their own run slower",
			"echo madvise > "+thp.Source)
	case defrag.Known:
		return found(area, check, fmt.Sprintf("%s, defrag %s", thp.Value, defrag.Value))
	default:
		return found(area, check, thp.Value)
	}
}

func evaluateKSM(facts Facts) Finding {
	const area, check = "memory", "ksm"
	policy, numa := facts.Memory.Policy, facts.Memory.NUMA
	switch {
	case !policy.KSM.Known:
		return undecided(area, check, policy.KSM.Err)
	case policy.KSM.Value != 1:
		return found(area, check, "not running: VMs share no pages")
	case !policy.KSMAcrossNodes.Known:
		return undecided(area, check, policy.KSMAcrossNodes.Err)
	case policy.KSMAcrossNodes.Value && !numa.Known:
		return undecided(area, check, numa.Err)
	case policy.KSMAcrossNodes.Value && len(numa.Value) > 1:
		return lacking(area, check, KSMAcrossNodes, fmt.Sprintf("%s is 1 on %d NUMA nodes: VMs read merged pages from far memory",
			policy.KSMAcrossNodes.Source, len(numa.Value)),
			fmt.Sprintf("cd %s; echo 2 > run; echo 0 > merge_across_nodes; echo 1 > run", ksmDir))
	case policy.KSMPagesSharing.Known:
		return found(area, check, fmt.Sprintf("running, %d pages saved", policy.KSMPagesSharing.Value))
	default:
		return found(area, check, "running")
	}
}

func evaluateOvercommit(facts Facts) Finding {
	const area, check = "memory", "overcommit"
	mode := facts.Memory.Policy.Overcommit
	if !mode.Known {
		return undecided(area, check, mode.Err)
	}
	switch mode.Value {
	case 0:
		return found(area, check, "heuristic: only obvious excess is refused")
	case 1:
		return found(area, check, "always: no allocation is refused")
	default:
		return lacking(area, check, OvercommitStrict,
			fmt.Sprintf("%s is %d: a VM's memory may be refused although it is free", mode.Source, mode.Value),
			"sysctl -w vm.overcommit_memory=0; to keep it, in /etc/sysctl.d")
	}
}

func evaluateSwap(facts Facts) Finding {
	const area, check = "memory", "swap"
	swap := facts.Memory.Policy.Swap
	switch {
	case !swap.Known:
		return undecided(area, check, swap.Err)
	case swap.Value.TotalKiB == 0:
		return found(area, check, "none")
	case swap.Value.UsedKiB == 0:
		return found(area, check, gib(swap.Value.TotalKiB)+", unused")
	default:
		return lacking(area, check, SwapInUse, fmt.Sprintf("%s: %s of %s in use: VMs may wait for a disk to read their memory",
			swap.Source, gib(swap.Value.UsedKiB), gib(swap.Value.TotalKiB)),
			"give VMs less memory, or move some away; then swapoff -a && swapon -a")
	}
}
