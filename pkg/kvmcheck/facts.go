package kvmcheck

import "github.com/virtnode/nodeagent/pkg/sriov"

// Facts is what was read off a host, before any judgement.
type Facts struct {
	Host    HostFacts    `json:"host"`
	CPU     CPUFacts     `json:"cpu"`
	KVM     KVMFacts     `json:"kvm"`
	Survey  Survey       `json:"survey"`
	Devices DeviceFacts  `json:"devices"`
	Memory  MemoryFacts  `json:"memory"`
	IOMMU   IOMMUFacts   `json:"iommu"`
	VFIO    VFIOFacts    `json:"vfio"`
	SRIOV   SRIOVFacts   `json:"sriov"`
	Cgroup  CgroupFacts  `json:"cgroup"`
	PCI     PCIInventory `json:"pci"`

	Firmware     FirmwareFacts        `json:"firmware"`
	Confidential ConfidentialFacts    `json:"confidential"`
	Time         TimeFacts            `json:"time"`
	Safety       SafetyFacts          `json:"safety"`
	Fingerprint  Reading[Fingerprint] `json:"fingerprint"`
}

// HostFacts says which machine this is.
type HostFacts struct {
	Arch    string           `json:"arch"`   // GOARCH: amd64, arm64
	Kernel  string           `json:"kernel"` // uname -r
	Product Reading[Product] `json:"product"`
}

// Product is the machine's own name, from DMI or the device tree.
type Product struct {
	Vendor string `json:"vendor,omitempty"`
	Name   string `json:"name,omitempty"`
}

// CPUFacts comes from /proc/cpuinfo.
type CPUFacts struct {
	Info Reading[CPUInfo] `json:"info"`
}

// CPUInfo is what /proc/cpuinfo says about virtualization.
type CPUInfo struct {
	Vendor     string `json:"vendor,omitempty"` // "GenuineIntel", "AuthenticAMD", "0x41"
	Model      string `json:"model,omitempty"`
	CPUs       int    `json:"cpus"`
	Extension  string `json:"extension,omitempty"` // "vmx", "svm", "sie"; empty: no such flag
	Extended   int    `json:"extended"`            // CPUs that have the flag
	Hypervisor bool   `json:"hypervisor"`          // the kernel runs as a guest

	Flags     []string   `json:"flags,omitempty"`     // of commonFlags, what every CPU has
	Microcode []CPUGroup `json:"microcode,omitempty"` // revisions
}

// KVMFacts is the state of KVM in the kernel.
type KVMFacts struct {
	Modules Reading[[]string]        `json:"modules"` // /sys/module/kvm*
	Nested  map[string]Reading[bool] `json:"nested"`  // by module: its parameter "nested"
	Proof   Proof                    `json:"proof"`
}

// DeviceFacts says how the device nodes that QEMU opens answered.
type DeviceFacts struct {
	Tun        Node `json:"tun"`
	VhostNet   Node `json:"vhostNet"`
	VhostVsock Node `json:"vhostVsock"`
}

// MemoryFacts lists huge page pools: one per size, and one per size and NUMA node.
type MemoryFacts struct {
	Hugepages Reading[[]HugepagePool] `json:"hugepages"`
	NUMA      Reading[[]NUMANode]     `json:"numa"`
	Policy    MemoryPolicy            `json:"policy"`
}

// HugepagePool counts the pages of one size, on the whole host or on one node.
type HugepagePool struct {
	SizeKiB  uint64           `json:"sizeKiB"`
	Total    Reading[uint64]  `json:"total"`
	Free     Reading[uint64]  `json:"free"`
	Reserved *Reading[uint64] `json:"reserved,omitempty"` // the kernel counts it for the whole host only
	Surplus  Reading[uint64]  `json:"surplus"`
}

// NUMANode is one memory node and what is near it.
type NUMANode struct {
	ID        int                     `json:"id"`
	CPUs      Reading[string]         `json:"cpus"`      // cpulist: "0-3,8-11"; empty: memory only
	Distances Reading[[]int]          `json:"distances"` // to every node, in node order
	MemoryKiB Reading[uint64]         `json:"memoryKiB"` // 0: CPUs only
	Hugepages Reading[[]HugepagePool] `json:"hugepages"`
}

// IOMMUFacts says what the firmware describes and what the kernel made of it.
type IOMMUFacts struct {
	Tables    Reading[[]string]     `json:"tables"`  // ACPI tables that describe an IOMMU
	Units     Reading[[]string]     `json:"units"`   // /sys/class/iommu
	Groups    Reading[[]IOMMUGroup] `json:"groups"`  // /sys/kernel/iommu_groups
	CmdLine   Reading[[]string]     `json:"cmdline"` // kernel parameters that steer the IOMMU
	Remapping RemappingFacts        `json:"remapping"`
}

// VFIOFacts says whether devices can be handed to guests.
type VFIOFacts struct {
	Modules    Reading[[]string]    `json:"modules"`   // of /sys/module: vfio* and iommufd
	Driver     Reading[bool]        `json:"driver"`    // vfio-pci is registered
	Container  Reading[bool]        `json:"container"` // /dev/vfio/vfio
	IOMMUFD    Reading[bool]        `json:"iommufd"`   // /dev/iommu
	NoIOMMU    Reading[bool]        `json:"noIOMMU"`   // vfio's parameter enable_unsafe_noiommu_mode
	Candidates Reading[[]Candidate] `json:"candidates"`
}

// SRIOVFacts lists the NICs and other devices that can have VFs.
type SRIOVFacts struct {
	PFs Reading[[]sriov.PF] `json:"pfs"`
}

// CgroupFacts says which resource controllers the kernel offers.
type CgroupFacts struct {
	Version     Reading[int]      `json:"version"` // 1 or 2
	Controllers Reading[[]string] `json:"controllers"`
}

// PCIInventory lists every PCI device.
type PCIInventory struct {
	Devices Reading[[]PCIDevice] `json:"devices"`
}

// PCIDevice is one PCI function; IDs are lower-case hexadecimal.
type PCIDevice struct {
	Address    string `json:"address"`
	Vendor     string `json:"vendor"`
	Device     string `json:"device"`
	Class      string `json:"class"` // base class and subclass: "0200" is an Ethernet NIC
	Driver     string `json:"driver,omitempty"`
	IOMMUGroup string `json:"iommuGroup,omitempty"`
}
