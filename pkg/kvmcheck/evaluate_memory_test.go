package kvmcheck

import (
	"errors"
	"testing"
)

func healthyMemoryPolicy() MemoryPolicy {
	return MemoryPolicy{
		THP: known(thpDir+"/enabled", "madvise"), THPDefrag: known(thpDir+"/defrag", "madvise"),
		KSM: known(ksmDir+"/run", uint64(0)), KSMPagesSharing: known(ksmDir+"/pages_sharing", uint64(0)),
		KSMAcrossNodes: known(ksmDir+"/merge_across_nodes", true),
		Overcommit:     known("/proc/sys/vm/overcommit_memory", uint64(0)), OvercommitRatio: known("/ratio", uint64(50)),
		Swap: known("/proc/meminfo", Swap{}),
	}
}

// numaNode is a node with pages of 2 MiB, and CPUs and memory unless told otherwise.
func numaNode(id int, total uint64, change ...func(*NUMANode)) NUMANode {
	node := NUMANode{
		ID: id, CPUs: known("/cpulist", "0-3"), Distances: known("/distance", []int{10, 21}), MemoryKiB: known("/meminfo", uint64(2<<20)),
		Hugepages: known("/pools", []HugepagePool{{SizeKiB: 2048, Total: known("/nr", total), Free: known("/free", total)}}),
	}
	for _, change := range change {
		change(&node)
	}
	return node
}

// caseOf is a change of a healthy host, and what one check must say of it.
type caseOf struct {
	change  func(*Facts)
	check   string
	status  Status
	reason  Reason
	message string // whole, unless empty
}

func checkCases(t *testing.T, cases map[string]caseOf) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			facts := healthy()
			test.change(&facts)
			for _, finding := range Evaluate(facts, Profile{}) {
				if finding.Key() != test.check {
					continue
				}
				declares(t, finding)
				if finding.Status != test.status || finding.Reason != test.reason {
					t.Errorf("got %s %s (%s), want %s %s", finding.Status, finding.Reason, finding.Message, test.status, test.reason)
				}
				if test.message != "" && finding.Message != test.message {
					t.Errorf("got message  %s\nwant message %s", finding.Message, test.message)
				}
				if finding.Status == NotReady && finding.Remedy == "" {
					t.Error("no remedy")
				}
				return
			}
			t.Errorf("no finding %s", test.check)
		})
	}
}

func TestMemoryFindings(t *testing.T) {
	broken := errors.New("input/output error")
	numa := func(nodes ...NUMANode) func(*Facts) {
		return func(f *Facts) { f.Memory.NUMA = known("/node", nodes) }
	}
	memoryOnly := func(n *NUMANode) { n.CPUs.Value = "" }
	cpusOnly := func(n *NUMANode) { n.MemoryKiB.Value = 0 }
	policy := func(change func(*MemoryPolicy)) func(*Facts) {
		return func(f *Facts) {
			f.Memory.NUMA = known("/node", []NUMANode{numaNode(0, 4), numaNode(1, 4)})
			change(&f.Memory.Policy)
		}
	}
	const balance, shape, pool = "memory/balance", "memory/numa", "memory/hugepages-2Mi"
	checkCases(t, map[string]caseOf{
		"pages on one of two nodes": {
			numa(numaNode(0, 0), numaNode(1, 32)), balance, NotReady, HugepagesLopsided,
			"2Mi pages are on node 1 only (node 0: 0, node 1: 32)",
		},
		"a node with a third of the pages": {
			numa(numaNode(0, 30), numaNode(1, 10)), balance, NotReady, HugepagesLopsided,
			"2Mi pages are spread unevenly (node 0: 30, node 1: 10)",
		},
		"a node with half of the pages": {numa(numaNode(0, 20), numaNode(1, 10)), balance, Ready, "", "over 2 NUMA nodes: 2Mi 20+10"},
		"the same pages on each node":   {numa(numaNode(0, 8), numaNode(1, 8)), balance, Ready, "", "over 2 NUMA nodes: 2Mi 8+8"},
		"no pages on any node":          {numa(numaNode(0, 0), numaNode(1, 0)), balance, Ready, "", "none of 2 NUMA nodes has huge pages"},
		"no pages on a node of memory alone": {
			numa(numaNode(0, 8), numaNode(1, 8), numaNode(2, 0, memoryOnly)), balance, Ready, "", "over 2 NUMA nodes: 2Mi 8+8",
		},
		"no pages on a node without memory": {numa(numaNode(0, 8), numaNode(1, 0, cpusOnly)), balance, Ready, "", "one NUMA node has all CPUs and memory"},
		"the size is not on the other node": {
			numa(numaNode(0, 8), numaNode(1, 0, func(n *NUMANode) { n.Hugepages.Value = nil })), balance, NotReady, HugepagesLopsided, "",
		},
		"a node's pools cannot be listed": {
			numa(numaNode(0, 8), numaNode(1, 0, func(n *NUMANode) { n.Hugepages = unknown[[]HugepagePool]("/pools", broken) })), balance, Unknown, ReadFailed, "",
		},
		"a node's pages cannot be read": {
			numa(numaNode(0, 8), numaNode(1, 0, func(n *NUMANode) { n.Hugepages.Value[0].Total = unknown[uint64]("/nr", broken) })), balance, Unknown, ReadFailed, "",
		},
		"a node's CPUs cannot be read": {
			numa(numaNode(0, 8), numaNode(1, 0, func(n *NUMANode) { n.CPUs = unknown[string]("/cpulist", broken) })), balance, Unknown, ReadFailed, "",
		},
		"two nodes": {
			numa(numaNode(0, 8), numaNode(1, 8)), shape, Ready, "",
			"2 nodes, distance up to 21: node 0 has 4 CPUs, 2.0 GiB; node 1 has 4 CPUs, 2.0 GiB",
		},
		"one node": {numa(numaNode(0, 8)), shape, Ready, "", "1 node: node 0 has 4 CPUs, 2.0 GiB"},
		"many nodes, of which the odd one is named": {
			numa(numaNode(0, 8), numaNode(1, 8), numaNode(2, 8), numaNode(3, 8), numaNode(4, 8, memoryOnly), numaNode(5, 0, cpusOnly)), shape, Ready, "",
			"6 nodes, distance up to 21: node 4 has 2.0 GiB and no CPU; node 5 has 4 CPUs and no memory",
		},
		"a node's distances cannot be read": {
			numa(numaNode(0, 8), numaNode(1, 8, func(n *NUMANode) { n.Distances = unknown[[]int]("/distance", broken) })), shape, Unknown, ReadFailed, "",
		},
		"some free pages are reserved": {
			func(f *Facts) {
				reserved := known("/resv", uint64(3))
				f.Memory.Hugepages.Value[0].Reserved = &reserved
			}, pool, Ready, "",
			"4 of 8 free; 3 of them are reserved, the kernel does not say on which node",
		},
		"all free pages are reserved": {
			func(f *Facts) {
				reserved := known("/resv", uint64(4))
				f.Memory.Hugepages.Value[0].Reserved = &reserved
			}, pool, NotReady, NoHugepagesFree, "",
		},
		"THP is off":             {policy(func(p *MemoryPolicy) { p.THP.Value = "never" }), "memory/thp", NotReady, THPDisabled, ""},
		"THP is not built in":    {policy(func(p *MemoryPolicy) { p.THP.Value = "" }), "memory/thp", NotReady, THPDisabled, ""},
		"KSM is off":             {policy(func(p *MemoryPolicy) {}), "memory/ksm", Ready, "", "not running: VMs share no pages"},
		"KSM mixes nodes":        {policy(func(p *MemoryPolicy) { p.KSM.Value = 1 }), "memory/ksm", NotReady, KSMAcrossNodes, ""},
		"KSM keeps to its nodes": {policy(func(p *MemoryPolicy) { p.KSM.Value, p.KSMAcrossNodes.Value = 1, false }), "memory/ksm", Ready, "", "running, 0 pages saved"},
		"KSM on one node": {
			func(f *Facts) { f.Memory.Policy.KSM.Value = 1 }, "memory/ksm", Ready, "", "running, 0 pages saved",
		},
		"KSM runs, and how is not known": {
			policy(func(p *MemoryPolicy) { p.KSM.Value = 1; p.KSMAcrossNodes = unknown[bool]("/merge", broken) }), "memory/ksm", Unknown, ReadFailed, "",
		},
		"strict overcommit": {policy(func(p *MemoryPolicy) { p.Overcommit.Value = 2 }), "memory/overcommit", NotReady, OvercommitStrict, ""},
		"free overcommit":   {policy(func(p *MemoryPolicy) { p.Overcommit.Value = 1 }), "memory/overcommit", Ready, "", ""},
		"swap in use": {
			policy(func(p *MemoryPolicy) { p.Swap.Value = Swap{TotalKiB: 2 << 20, UsedKiB: 1 << 20} }), "memory/swap", NotReady, SwapInUse,
			"/proc/meminfo: 1.0 GiB of 2.0 GiB in use: VMs may wait for a disk to read their memory",
		},
		"swap unused": {policy(func(p *MemoryPolicy) { p.Swap.Value = Swap{TotalKiB: 2 << 20} }), "memory/swap", Ready, "", "2.0 GiB, unused"},
	})
}
