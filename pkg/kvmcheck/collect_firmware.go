package kvmcheck

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	onlineCPUs     = "/sys/devices/system/cpu/online"
	hypervisorType = "/sys/hypervisor/type"
	sysinfoPath    = "/proc/sysinfo"
	deviceTree     = "/sys/firmware/devicetree/base"
)

// The registers in which firmware switches virtualization (Intel SDM volume 4,
// table 2-2; AMD APM volume 2, 15.30.1).
const (
	msrFeatureControl = 0x3a       // IA32_FEATURE_CONTROL
	msrVMCR           = 0xc0010114 // VM_CR

	featureControlLocked = 1 << 0
	featureControlVMX    = 1 << 2 // VMXON outside SMX
	vmcrLock             = 1 << 3
	vmcrSVMDisabled      = 1 << 4
)

// CPUID leaves with the virtualization bits.
const (
	leafFeatures         = 1 // ECX bit 5: VMX
	leafHypervisor       = 0x40000000
	leafExtendedFeatures = 0x80000001 // ECX bit 2: SVM
)

// collectFirmware asks every CPU's firmware register, and what is above the kernel.
func collectFirmware(host Host, facts Facts) FirmwareFacts {
	firmware := FirmwareFacts{Hypervisor: collectHypervisor(host, facts)}
	if facts.Host.Arch != "amd64" {
		return firmware
	}
	info := facts.CPU.Info
	if !info.Known {
		firmware.Registers = Reading[[]CPUGroup]{Source: info.Source, Err: info.Err}
		firmware.Offered = Reading[bool]{Source: info.Source, Err: info.Err}
		return firmware
	}
	cpus, err := readOnlineCPUs(host.Root)
	if err != nil {
		firmware.Registers = unknown[[]CPUGroup](onlineCPUs, err)
		firmware.Offered = unknown[bool](onlineCPUs, err)
		return firmware
	}
	firmware.Offered = collectOffered(host.Devices, info.Value.Vendor, cpus[0])
	firmware.Registers, firmware.Driver = collectRegisters(host.Devices, info.Value.Vendor, cpus)
	return firmware
}

// readOnlineCPUs lists the CPUs that can be asked; there is at least one.
func readOnlineCPUs(root *hostfs.Root) ([]int, error) {
	text, err := root.ReadString(onlineCPUs)
	if err != nil {
		return nil, err
	}
	cpus, err := parseCPUList(text)
	if err == nil && len(cpus) == 0 {
		err = errors.New("no CPU in it")
	}
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", onlineCPUs, err)
	}
	return cpus, nil
}

// collectOffered asks CPUID itself: the kernel takes the flag out of
// /proc/cpuinfo when firmware has switched the feature off.
func collectOffered(devices Devices, vendor string, cpu int) Reading[bool] {
	leaf, bit := uint32(leafFeatures), 5
	if firmwareRegister(vendor) == msrVMCR {
		leaf, bit = leafExtendedFeatures, 2
	}
	source := fmt.Sprintf("%s leaf %#x", cpuidPath(cpu), leaf)
	id, err := devices.ReadCPUID(cpu, leaf)
	return reading(source, id.ECX>>bit&1 == 1, err)
}

// firmwareRegister is the vendor's register, 0 for a vendor that has none.
func firmwareRegister(vendor string) uint32 {
	switch vendor {
	case "GenuineIntel", "CentaurHauls", "Shanghai":
		return msrFeatureControl
	case "AuthenticAMD", "HygonGenuine":
		return msrVMCR
	default:
		return 0
	}
}

// collectRegisters reads the firmware register of every CPU, and whether there
// is a driver to read it with.
func collectRegisters(devices Devices, vendor string, cpus []int) (Reading[[]CPUGroup], Reading[bool]) {
	register := firmwareRegister(vendor)
	source := fmt.Sprintf("%s register %#x", path.Dir(msrPath(cpus[0])), register)
	if register == 0 {
		err := fmt.Errorf("no register is known for CPUs of %.20q", vendor)
		return unknown[[]CPUGroup](source, err), unknown[bool](source, err)
	}
	values := make([]cpuValue, 0, len(cpus))
	for _, cpu := range cpus {
		value, err := devices.ReadMSR(cpu, register)
		if err != nil {
			there := known(msrPath(cpu), !hostfs.Absent(err))
			if errors.Is(err, hostfs.ErrNotMounted) || errors.Is(err, hostfs.ErrNotRecorded) {
				there = unknown[bool](msrPath(cpu), err)
			}
			return unknown[[]CPUGroup](fmt.Sprintf("%s register %#x", msrPath(cpu), register), err), there
		}
		values = append(values, cpuValue{cpu, value})
	}
	source = fmt.Sprintf("/dev/cpu/*/msr register %#x", register)
	return known(source, groupCPUs(values)), known(msrPath(cpus[0]), true)
}

// collectHypervisor says what the kernel runs on. x86 has a CPUID bit for it,
// s390 a file; elsewhere device tree and DMI have to tell.
func collectHypervisor(host Host, facts Facts) Reading[Hypervisor] {
	switch facts.Host.Arch {
	case "amd64":
		info := facts.CPU.Info
		switch {
		case !info.Known:
			return Reading[Hypervisor]{Source: info.Source, Err: info.Err}
		case !info.Value.Hypervisor:
			return known(info.Source, Hypervisor{})
		default:
			return known(info.Source, Hypervisor{Name: nameHypervisor(host, facts), Depth: 1})
		}
	case "s390x":
		data, err := host.Root.ReadFile(sysinfoPath)
		if err != nil {
			return unknown[Hypervisor](sysinfoPath, err)
		}
		hypervisor, err := parseSysinfo(data)
		return reading(sysinfoPath, hypervisor, err)
	default:
		return collectHypervisorByName(host.Root, facts.Host.Product)
	}
}

// nameHypervisor names an x86 hypervisor: by CPUID, sysfs or DMI; empty when none says.
func nameHypervisor(host Host, facts Facts) string {
	if cpus, err := readOnlineCPUs(host.Root); err == nil {
		if id, err := host.Devices.ReadCPUID(cpus[0], leafHypervisor); err == nil {
			return parseHypervisorSignature(id)
		}
	}
	if kind, err := host.Root.ReadString(hypervisorType); err == nil && kind != "" {
		return clipText(kind)
	}
	return hypervisorOfProduct(facts.Host.Product.Value)
}

// collectHypervisorByName looks for a hypervisor's name. Bare metal is what
// has a name of its own and no sign of a hypervisor.
func collectHypervisorByName(root *hostfs.Root, product Reading[Product]) Reading[Hypervisor] {
	if name := hypervisorOfProduct(product.Value); name != "" {
		return known(product.Source, Hypervisor{Name: name, Depth: 1})
	}
	node := path.Join(deviceTree, "hypervisor/compatible")
	for _, source := range []string{hypervisorType, node} {
		data, err := root.ReadFile(source)
		switch {
		case hostfs.Absent(err):
		case err != nil:
			return unknown[Hypervisor](source, err)
		default:
			name, _, _ := strings.Cut(string(data), "\x00") // the device tree ends strings so
			return known(source, Hypervisor{Name: clipText(strings.TrimSpace(name)), Depth: 1})
		}
	}
	if !product.Known {
		return Reading[Hypervisor]{Source: product.Source, Err: product.Err}
	}
	return known(product.Source, Hypervisor{})
}

// hypervisorOfProduct knows the names that hypervisors give to their machines,
// empty for any other.
func hypervisorOfProduct(product Product) string {
	if strings.Contains(product.Name, ".metal") { // Amazon's bare-metal instances
		return ""
	}
	for _, known := range []struct{ word, name string }{
		{"KubeVirt", "KVM"},
		{"OpenStack", "KVM"},
		{"QEMU", "QEMU"},
		{"KVM", "KVM"},
		{"Amazon EC2", "Amazon EC2"},
		{"Google Compute Engine", "Google Compute Engine"},
		{"VMware", "VMware"},
		{"Virtual Machine", "Hyper-V"},
		{"VirtualBox", "VirtualBox"},
		{"Xen", "Xen"},
		{"Parallels", "Parallels"},
		{"BHYVE", "bhyve"},
		{"Apple Virtualization", "Apple Virtualization"},
	} {
		if strings.Contains(product.Vendor, known.word) || strings.Contains(product.Name, known.word) {
			return known.name
		}
	}
	return ""
}
