package kvmcheck

// MemoryPolicy is how the kernel deals with VMs' memory.
type MemoryPolicy struct {
	// Transparent huge pages, from /sys/kernel/mm/transparent_hugepage: the
	// chosen word; empty when the kernel has none of it.
	THP       Reading[string] `json:"thp"`       // always, madvise, never
	THPDefrag Reading[string] `json:"thpDefrag"` // always, defer, defer+madvise, madvise, never
	// Kernel samepage merging, from /sys/kernel/mm/ksm.
	KSM             Reading[uint64] `json:"ksm"` // 0 stopped, 1 running, 2 stopped and undone
	KSMPagesSharing Reading[uint64] `json:"ksmPagesSharing"`
	KSMAcrossNodes  Reading[bool]   `json:"ksmAcrossNodes"` // pages of different NUMA nodes are merged
	// /proc/sys/vm
	Overcommit      Reading[uint64] `json:"overcommit"`      // 0 heuristic, 1 always, 2 never
	OvercommitRatio Reading[uint64] `json:"overcommitRatio"` // percent of RAM, for 2
	Swap            Reading[Swap]   `json:"swap"`            // /proc/meminfo
}

// Swap is what the host has swapped out. A Total of 0 is no swap.
type Swap struct {
	TotalKiB uint64 `json:"totalKiB"`
	UsedKiB  uint64 `json:"usedKiB"`
}
