package kvmcheck

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	hugepagesDir = "/sys/kernel/mm/hugepages"
	nodesDir     = "/sys/devices/system/node"
	thpDir       = "/sys/kernel/mm/transparent_hugepage"
	ksmDir       = "/sys/kernel/mm/ksm"
	vmSysctls    = "/proc/sys/vm"
)

func collectMemory(root *hostfs.Root) MemoryFacts {
	return MemoryFacts{
		Hugepages: collectHugepages(root, hugepagesDir),
		NUMA:      collectNUMA(root),
		Policy:    collectMemoryPolicy(root),
	}
}

// collectHugepages reads the pools below a directory, whole-host or one node's
// (Linux Documentation/ABI/testing/sysfs-kernel-mm-hugepages). A kernel
// without hugetlbfs has none.
func collectHugepages(root *hostfs.Root, dir string) Reading[[]HugepagePool] {
	names, err := root.ReadDir(dir)
	if hostfs.Absent(err) {
		return known(dir, []HugepagePool{})
	}
	if err != nil {
		return unknown[[]HugepagePool](dir, err)
	}
	pools := []HugepagePool{}
	for _, name := range names {
		size, ok := parsePoolName(name)
		if !ok {
			continue
		}
		pool := HugepagePool{
			SizeKiB: size,
			Total:   readPages(root, dir, name, "nr_hugepages"),
			Free:    readPages(root, dir, name, "free_hugepages"),
			Surplus: readPages(root, dir, name, "surplus_hugepages"),
		}
		if dir == hugepagesDir {
			reserved := readPages(root, dir, name, "resv_hugepages")
			pool.Reserved = &reserved
		}
		pools = append(pools, pool)
	}
	slices.SortFunc(pools, func(a, b HugepagePool) int { return cmp.Compare(a.SizeKiB, b.SizeKiB) })
	return known(dir, pools)
}

func readPages(root *hostfs.Root, elem ...string) Reading[uint64] {
	source := path.Join(elem...)
	pages, err := root.ReadUint(source)
	return reading(source, pages, err)
}

// parsePoolName reads "hugepages-2048kB".
func parsePoolName(name string) (sizeKiB uint64, ok bool) {
	digits, isPool := strings.CutPrefix(name, "hugepages-")
	digits, inKiB := strings.CutSuffix(digits, "kB")
	if !isPool || !inKiB {
		return 0, false
	}
	size, err := strconv.ParseUint(digits, 10, 64)
	return size, err == nil && size > 0
}

// collectNUMA reads /sys/devices/system/node/nodeN
// (Linux Documentation/ABI/stable/sysfs-devices-node).
func collectNUMA(root *hostfs.Root) Reading[[]NUMANode] {
	names, err := root.ReadDir(nodesDir)
	if hostfs.Absent(err) {
		return known(nodesDir, []NUMANode{}) // a kernel without NUMA
	}
	if err != nil {
		return unknown[[]NUMANode](nodesDir, err)
	}
	nodes := []NUMANode{}
	for _, name := range names {
		digits, isNode := strings.CutPrefix(name, "node")
		id, err := strconv.Atoi(digits)
		if !isNode || err != nil {
			continue
		}
		nodes = append(nodes, collectNode(root, path.Join(nodesDir, name), id))
	}
	slices.SortFunc(nodes, func(a, b NUMANode) int { return cmp.Compare(a.ID, b.ID) })
	return known(nodesDir, nodes)
}

func collectNode(root *hostfs.Root, dir string, id int) NUMANode {
	node := NUMANode{ID: id}
	source := path.Join(dir, "cpulist")
	cpus, err := root.ReadString(source)
	if err == nil {
		_, err = parseCPUList(cpus)
	}
	node.CPUs = reading(source, cpus, err)

	source = path.Join(dir, "distance")
	text, err := root.ReadString(source)
	if err != nil {
		node.Distances = unknown[[]int](source, err)
	} else {
		distances, err := parseDistances(text)
		node.Distances = reading(source, distances, err)
	}

	source = path.Join(dir, "meminfo")
	data, err := root.ReadFile(source)
	if err != nil {
		node.MemoryKiB = unknown[uint64](source, err)
	} else {
		total, err := parseNodeMemTotal(data)
		node.MemoryKiB = reading(source, total, err)
	}
	node.Hugepages = collectHugepages(root, path.Join(dir, "hugepages"))
	return node
}

// collectMemoryPolicy reads transparent huge pages, KSM, overcommit and swap
// (Linux Documentation/admin-guide/mm/transhuge.rst and ksm.rst,
// Documentation/admin-guide/sysctl/vm.rst, proc_meminfo(5)).
func collectMemoryPolicy(root *hostfs.Root) MemoryPolicy {
	const meminfo = "/proc/meminfo"
	policy := MemoryPolicy{
		THP:             readChoice(root, path.Join(thpDir, "enabled")),
		THPDefrag:       readChoice(root, path.Join(thpDir, "defrag")),
		KSM:             orZero(root.ReadUint, path.Join(ksmDir, "run")),
		KSMPagesSharing: orZero(root.ReadUint, path.Join(ksmDir, "pages_sharing")),
		KSMAcrossNodes:  orZero(root.ReadBool, path.Join(ksmDir, "merge_across_nodes")),
		Overcommit:      readPages(root, vmSysctls, "overcommit_memory"),
		OvercommitRatio: readPages(root, vmSysctls, "overcommit_ratio"),
	}
	data, err := root.ReadFile(meminfo)
	if err != nil {
		policy.Swap = unknown[Swap](meminfo, err)
		return policy
	}
	swap, err := parseSwap(data)
	policy.Swap = reading(meminfo, swap, err)
	return policy
}

// orZero reads a file that a kernel built without the feature does not have:
// then the feature is off.
func orZero[T any](read func(string) (T, error), source string) Reading[T] {
	value, err := read(source)
	if hostfs.Absent(err) {
		var zero T
		return known(source, zero)
	}
	return reading(source, value, err)
}

// readChoice reads a file that lists words and brackets the chosen one.
func readChoice(root *hostfs.Root, source string) Reading[string] {
	return orZero(func(name string) (string, error) {
		text, err := root.ReadString(name)
		if err != nil {
			return "", err
		}
		return parseChoice(text)
	}, source)
}
