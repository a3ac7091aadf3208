package vm

import (
	"fmt"
	"time"
)

// Profile is a machine to boot. The functions of this file return ones that
// are ready to use; a test that needs a variant changes fields of its copy.
type Profile struct {
	Name   string
	Memory string // as in QEMU's -m
	CPUs   int
	CPU    string // as in QEMU's -cpu
	// QEMU is what the machine has besides CPU, memory, console and share.
	QEMU []string
	// Append is added to the kernel's command line.
	Append []string
	// Modules are loaded, in order, before the machine is handed out.
	// More can be loaded by commands: every one of imageModules is there.
	Modules []string
	// Share is the host's folder that is /share in the guest; when empty,
	// a new one that is removed at the end.
	Share string
	// BootTimeout is how long the machine may take until its first command.
	BootTimeout time.Duration
}

// svm is a CPU with the virtualization that TCG can emulate (AMD's, not
// Intel's). With more than 36 bits of physical address the firmware puts the
// BARs of SR-IOV VFs where the igbvf driver cannot map them.
const svm = "EPYC-v4,+svm,phys-bits=36"

// bootTimeout is generous: a boot takes some 10 s of two idle CPUs.
const bootTimeout = 4 * time.Minute

// KVM is a machine with /dev/kvm and a kernel with BTF.
func KVM() Profile {
	return Profile{
		Name:        "kvm",
		Memory:      "2G",
		CPUs:        2,
		CPU:         svm,
		Modules:     []string{"kvm_amd"},
		BootTimeout: bootTimeout,
	}
}

// SRIOV is a machine with an IOMMU and one igb PF, eth0, of up to 7 VFs.
func SRIOV() Profile {
	return Profile{
		Name:   "sriov",
		Memory: "2G",
		CPUs:   2,
		CPU:    svm,
		QEMU: append(iommu(),
			"-device", "pcie-root-port,id=port0,bus=pcie.0,chassis=1,slot=1",
			"-netdev", "hubport,id=wire0,hubid=0",
			"-device", "igb,bus=port0,netdev=wire0,mac=52:54:00:12:00:01",
		),
		Append:      []string{"intel_iommu=on"},
		Modules:     []string{"kvm_amd", "igb", "igbvf", "vfio_iommu_type1", "vfio-pci"},
		BootTimeout: bootTimeout,
	}
}

// NUMA is a machine of two nodes, each with a CPU, 2 GiB and an igb PF (eth0
// and eth1, on one wire), and an IOMMU. A huge page of 1 GiB is asked for on
// each node at boot, of which node 0 has none to give.
func NUMA() Profile {
	p := Profile{
		Name:        "numa",
		Memory:      "4G",
		CPUs:        2,
		CPU:         svm,
		QEMU:        iommu(),
		Append:      []string{"intel_iommu=on", "hugepagesz=1G", "hugepages=0:1,1:1"},
		Modules:     []string{"kvm_amd", "igb", "igbvf", "vfio_iommu_type1", "vfio-pci"},
		BootTimeout: bootTimeout,
	}
	// QEMU lists the host bridges to the guest in the reverse order: node 0
	// comes last to have eth0.
	for _, node := range []int{1, 0} {
		p.QEMU = append(p.QEMU,
			"-object", fmt.Sprintf("memory-backend-ram,id=ram%d,size=2G", node),
			"-numa", fmt.Sprintf("node,nodeid=%d,cpus=%d,memdev=ram%d", node, node, node),
			"-device", fmt.Sprintf("pxb-pcie,id=host%d,bus=pcie.0,bus_nr=%d,numa_node=%d", node, 0x40+0x20*node, node),
			"-device", fmt.Sprintf("pcie-root-port,id=port%d,bus=host%d,chassis=%d,slot=%d", node, node, node+1, node+1),
			"-netdev", fmt.Sprintf("hubport,id=wire%d,hubid=0", node),
			"-device", fmt.Sprintf("igb,bus=port%d,netdev=wire%d,mac=52:54:00:12:00:%02x", node, node, node+1),
		)
	}
	return p
}

// iommu is Intel's also with the AMD CPU: with amd-iommu igb does not work.
// The kernel uses it with intel_iommu=on only.
func iommu() []string {
	return []string{"-device", "intel-iommu,intremap=on,caching-mode=on"}
}

// Profiles returns the profiles that a person can name.
func Profiles() []Profile { return []Profile{KVM(), SRIOV(), NUMA()} }
