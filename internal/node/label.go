package node

import (
	"slices"
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Prefix is that of every label the agent writes.
const Prefix = "virtnode.io/"

// What the names of some labels begin with.
const (
	networkPrefix = Prefix + "network."
	customPrefix  = Prefix + "custom."
)

// yes is the value of a label whose presence is the message.
const yes = "true"

// fact is what the facts say of a label: its value, or that it is known to have
// none, or nothing.
type fact struct {
	value string
	known bool
}

func unknown() fact { return fact{} }

// text is a value as it may stand in a label.
func text(value string) fact { return fact{labelValue(value), true} }

func number[T int | uint64](value T) fact { return fact{strconv.FormatUint(uint64(value), 10), true} }

// onlyIf is "true", or no label.
func onlyIf(is bool) fact {
	if is {
		return fact{yes, true}
	}
	return fact{"", true}
}

// either is "true" or "false".
func either(is fact) fact {
	if is.known && is.value == "" {
		return fact{"false", true}
	}
	return is
}

func ifReady(status kvmcheck.Status) fact {
	if status == kvmcheck.Unknown {
		return unknown()
	}
	return onlyIf(status == kvmcheck.Ready)
}

// judged is facts, and the answers to the built-in checks about them by name,
// whatever profile the node has.
type judged struct {
	kvmcheck.Facts
	status       map[string]kvmcheck.Status
	technologies map[string]kvmcheck.Status
}

func judgeFacts(facts kvmcheck.Facts) *judged {
	j := &judged{Facts: facts, status: make(map[string]kvmcheck.Status), technologies: kvmcheck.Technologies(facts)}
	for _, finding := range kvmcheck.Evaluate(facts, kvmcheck.Profile{}) {
		j.status[finding.Key()] = finding.Status
	}
	return j
}

// row is a label of every host.
type row struct {
	name   string // after the prefix
	values string // for the reference
	means  string
	from   string // the check or the facts that it is made of
	of     func(*judged) fact
}

// check is a row that follows a check.
func check(name, means, key string) row {
	return row{name, "`true`, or absent", means, key, func(j *judged) fact { return ifReady(j.status[key]) }}
}

// confidential is a row that follows a technology.
func confidential(name, technology string) row {
	return row{
		"confidential." + name, "`true`, or absent", "VMs can be kept secret from the host with " + technology + ".", "guests/confidential",
		func(j *judged) fact {
			status, asked := j.technologies[technology]
			if !asked {
				return onlyIf(false) // not on this architecture
			}
			return ifReady(status)
		},
	}
}

// rows are the labels of a host, the most important first: when there are too
// many, the last are cut.
func rows() []row {
	return []row{
		{
			"kvm", "`true`, `false`", "A guest ran on `/dev/kvm`.", "kvm/device",
			func(j *judged) fact { return either(ifReady(j.status["kvm/device"])) },
		},
		check("kvm.nested", "VMs can run VMs themselves.", "kvm/nested"),
		{"cpu.vendor", "as the CPU says it", "Vendor of the CPUs, such as `GenuineIntel`, `AuthenticAMD`.", "/proc/cpuinfo", vendorOf},
		{"cpu.virtualization", "`vmx`, `svm`, `sie`", "Which virtualization all CPUs have.", "/proc/cpuinfo", extensionOf},
		{"cpu.migration-group", "12 hexadecimal digits", "Nodes of one group show VMs the same CPU: as far as that goes, live migration between them is safe both ways.", "the fingerprint of `nodeagent check --compare`", func(j *judged) fact {
			if !j.Fingerprint.Known {
				return unknown()
			}
			return text(j.Fingerprint.Value.Hash)
		}},
		{"node.virtualized", "`true`, `false`", "The node is a VM itself.", "machine/bare-metal", func(j *judged) fact {
			if !j.Firmware.Hypervisor.Known {
				return unknown()
			}
			return either(onlyIf(j.Firmware.Hypervisor.Value.Depth > 0))
		}},
		{"hugepages-2Mi", "`true`, or absent", "Huge pages of 2 MiB are set aside.", "memory/hugepages-2Mi", hugepages(2 << 10)},
		{"hugepages-1Gi", "`true`, or absent", "Huge pages of 1 GiB are set aside.", "memory/hugepages-1Gi", hugepages(1 << 20)},
		{"numa.nodes", "a number", "NUMA nodes of the host.", "/sys/devices/system/node", func(j *judged) fact {
			if !j.Memory.NUMA.Known {
				return unknown()
			}
			return number(max(len(j.Memory.NUMA.Value), 1)) // a kernel without NUMA is one node
		}},
		check("iommu", "The kernel uses an IOMMU.", "iommu/kernel"),
		check("iommu.interrupt-remapping", "Devices of VMs cannot forge interrupts.", "iommu/interrupts"),
		check("vfio", "Devices can be handed to VMs.", "vfio/driver"),
		{"sriov", "`true`, or absent", "A device can have virtual functions.", "sriov/capability", func(j *judged) fact {
			if !j.SRIOV.PFs.Known {
				return unknown()
			}
			return onlyIf(len(j.SRIOV.PFs.Value) > 0)
		}},
		{"sriov.vfs-total", "a number, or absent", "Virtual functions that all devices can have together.", "sriov/capability", func(j *judged) fact {
			return vfs(j, func(c count) int { return c.total })
		}},
		{"sriov.vfs-configured", "a number, or absent", "Virtual functions that there are.", "sriov/capability", func(j *judged) fact {
			return vfs(j, func(c count) int { return c.configured })
		}},
		check("vhost-net", "The kernel moves VMs' network traffic.", "devices/vhost-net"),
		check("vhost-vsock", "VMs and the host can talk without a network.", "devices/vhost-vsock"),
		{"tsc.frequency", "hertz, or absent", "Frequency that VMs see of the CPUs' time stamp counter.", "KVM_GET_TSC_KHZ", tscFrequency},
		{"tsc.stable", "`true`, or absent", "The time stamp counter runs at one rate, always.", "time/tsc", func(j *judged) fact {
			if j.Host.Arch != "amd64" {
				return onlyIf(false)
			}
			return ifReady(j.status["time/tsc"])
		}},
		confidential("sev", "SEV"),
		confidential("sev-es", "SEV-ES"),
		confidential("sev-snp", "SEV-SNP"),
		confidential("tdx", "TDX"),
		confidential("secure-execution", "Secure Execution"),
	}
}

func vendorOf(j *judged) fact {
	if info := j.CPU.Info; info.Known && info.Value.Vendor != "" {
		return text(info.Value.Vendor)
	}
	return unknown()
}

func extensionOf(j *judged) fact {
	info := j.CPU.Info
	switch {
	case !info.Known || (info.Value.Extension == "" && j.status["cpu/virtualization"] != kvmcheck.NotReady):
		return unknown() // or an architecture without such a flag
	case info.Value.Extended < info.Value.CPUs:
		return onlyIf(false)
	default:
		return text(info.Value.Extension)
	}
}

// hugepages asks whether there are any of a size. How many are free is for the
// scheduler, which the kubelet tells.
func hugepages(sizeKiB uint64) func(*judged) fact {
	return func(j *judged) fact {
		pools := j.Memory.Hugepages
		if !pools.Known {
			return unknown()
		}
		for _, pool := range pools.Value {
			switch {
			case pool.SizeKiB != sizeKiB:
			case !pool.Total.Known:
				return unknown()
			default:
				return onlyIf(pool.Total.Value > 0)
			}
		}
		return onlyIf(false)
	}
}

type count struct{ total, configured int }

func vfs(j *judged, which func(count) int) fact {
	pfs := j.SRIOV.PFs
	if !pfs.Known {
		return unknown()
	}
	if len(pfs.Value) == 0 {
		return onlyIf(false)
	}
	var all count
	for _, pf := range pfs.Value {
		all.total += pf.TotalVFs
		all.configured += pf.NumVFs
	}
	return number(which(all))
}

func tscFrequency(j *judged) fact {
	const hertz = 1000
	switch {
	case j.Host.Arch != "amd64":
		return onlyIf(false)
	case j.Survey.TSCKHz.Known && j.Survey.TSCKHz.Value > 0:
		return number(j.Survey.TSCKHz.Value * hertz)
	default:
		return unknown()
	}
}

// mostValue is the longest that a label's value may be.
const mostValue = 63

// labelValue makes of a text what the API server takes as a label's value.
func labelValue(value string) string {
	value = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '-'
	}, value)
	return strings.Trim(value[:min(len(value), mostValue)], "-_.")
}

// The bounds of all labels of a node together.
const (
	mostLabels = 25
	mostBytes  = 2 << 10
)

// rank orders labels by importance: those of every host as in rows, then
// networks, then those of a user's own.
func rank(key string) int {
	names := rows()
	at := slices.IndexFunc(names, func(r row) bool { return Prefix+r.name == key })
	switch {
	case at >= 0:
		return at
	case strings.HasPrefix(key, networkPrefix):
		return len(names)
	default:
		return len(names) + 1
	}
}
