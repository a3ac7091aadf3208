package kvmcheck

// The reasons of memory.
const (
	HugepagesLopsided Reason = "HugepagesLopsided"
	THPDisabled       Reason = "THPDisabled"
	KSMAcrossNodes    Reason = "KSMAcrossNodes"
	OvercommitStrict  Reason = "OvercommitStrict"
	SwapInUse         Reason = "SwapInUse"
)

func checksOfMemory() []Check {
	return []Check{
		{"memory", "hugepages*", Optional, "Are huge pages of each size set aside and free?", "/sys/kernel/mm/hugepages, /sys/devices/system/node", []Reason{NoHugepages, NoHugepagesFree, HugepagesUnsupported}},
		{"memory", "balance", Recommended, "Has each NUMA node its share of the huge pages?", "/sys/devices/system/node/node*/hugepages", []Reason{HugepagesLopsided}},
		{"memory", "numa", Optional, "Which NUMA nodes are there?", "/sys/devices/system/node", nil},
		{"memory", "thp", Optional, "May the kernel use huge pages by itself?", "/sys/kernel/mm/transparent_hugepage", []Reason{THPDisabled}},
		{"memory", "ksm", Optional, "If the kernel merges VMs' pages, does it leave them on their NUMA node?", "/sys/kernel/mm/ksm", []Reason{KSMAcrossNodes}},
		{"memory", "overcommit", Recommended, "May a VM ask for memory before it uses it?", "/proc/sys/vm/overcommit_memory", []Reason{OvercommitStrict}},
		{"memory", "swap", Optional, "Is all memory of VMs in RAM?", "/proc/meminfo", []Reason{SwapInUse}},
	}
}

func causesOfMemory() []Cause {
	return []Cause{
		{HugepagesLopsided, "A NUMA node has less than half as many huge pages of a size as another. A VM that is pinned to it, or whose pages must all be near its CPUs, fails at its start although the host as a whole has enough. Nodes without CPUs or without memory are left aside.", []Fix{
			{"", "at run time: echo N > /sys/devices/system/node/nodeK/hugepages/hugepages-SIZEkB/nr_hugepages for each node"},
			{"", "at boot: hugepagesz=1G hugepages=0:N,1:N on the kernel command line (Linux 5.16 and later)"},
			{"Kubernetes", "restart the kubelet afterwards: it counts them at its start"},
		}},
		{THPDisabled, "Transparent huge pages are off, so VMs without huge pages of their own are mapped in pages of 4 KiB and run slower.", []Fix{
			{"", "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; to keep it: transparent_hugepage=madvise on the kernel command line"},
		}},
		{KSMAcrossNodes, "Kernel samepage merging (KSM) merges pages across NUMA nodes, so VMs read some of their memory from a far node.", []Fix{
			{"", "in /sys/kernel/mm/ksm: echo 2 > run; echo 0 > merge_across_nodes; echo 1 > run"},
			{"KubeVirt", "leave the node out of ksmConfiguration's nodeLabelSelector"},
		}},
		{OvercommitStrict, "The kernel counts all memory that is asked for (overcommit_memory 2), used or not. VMs ask for all of theirs at their start and may be refused.", []Fix{
			{"", "sysctl -w vm.overcommit_memory=0, and remove the setting from /etc/sysctl.d"},
		}},
		{SwapInUse, "Part of the memory of processes or VMs is on disk.", []Fix{
			{"", "give VMs less memory or move some away, then swapoff -a && swapon -a"},
			{"KubeVirt", "wanted with its swap support (wasp-agent); then ask a profile to skip memory/swap"},
		}},
	}
}
