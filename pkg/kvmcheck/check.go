package kvmcheck

import (
	"path"
	"slices"
)

// Check is one question that is asked of every host.
type Check struct {
	Area    string   `json:"area"`
	Name    string   `json:"name"`  // may end in * for a check per page size, CPU or device
	Level   Level    `json:"level"` // in the profile kubevirt
	Asks    string   `json:"asks"`
	Reads   string   `json:"reads"`   // files, ioctls, instructions
	Reasons []Reason `json:"reasons"` // that it can give, besides ReadFailed
}

// Key names the check: "kvm/device", "memory/hugepages*".
func (c Check) Key() string { return c.Area + "/" + c.Name }

// Covers reports whether a finding is one of the check's.
func (c Check) Covers(finding Finding) bool { return matches(c.Key(), finding.Key()) }

// matches is false for a pattern that is none.
func matches(pattern, key string) bool {
	ok, err := path.Match(pattern, key)
	return ok && err == nil
}

// Checks lists every check, in the order of a report.
func Checks() []Check {
	return slices.Concat(checksOfKVM(), checksOfSurvey(), checksOfDevices(), checksOfFirmware(), checksOfMemory(),
		checksOfResources(), checksOfPassthrough(), checksOfSafety(), checksOfConfidential())
}

func checksOfKVM() []Check {
	return []Check{
		{"cpu", "virtualization", Required, "Do all CPUs have hardware virtualization?", "/proc/cpuinfo", []Reason{CPUFlagMissing, CPUFlagPartial, NestedNotExposed, FlagUndefined, DisabledInFirmware, FirmwareDiffers}},
		{"kvm", "module", Required, "Is KVM loaded or built in?", "/sys/module/kvm*", []Reason{ModuleNotLoaded}},
		{"kvm", "device", Required, "Does a guest of a few instructions run?", "/dev/kvm: KVM_GET_API_VERSION to KVM_RUN", []Reason{DeviceMissing, PermissionDenied, DeviceBusy, DeviceUnusable, VirtualizationInUse, DescriptorsExhausted, APIVersionMismatch, OutOfMemory, GuestFailed, GuestTimeout, ProofNotImplemented}},
		{"kvm", "nested", Optional, "Can VMs run VMs themselves?", "/sys/module/kvm_*/parameters/nested", []Reason{NestedDisabled}},
	}
}

func checksOfDevices() []Check {
	return []Check{
		{"devices", "tun", Required, "Can network interfaces for VMs be made?", "/dev/net/tun, opened", nodeReasons()},
		{"devices", "vhost-net", Required, "Can the kernel move VMs' network traffic?", "/dev/vhost-net, opened", nodeReasons()},
		{"devices", "vhost-vsock", Optional, "Can VMs and the host talk without a network?", "/dev/vhost-vsock, opened", nodeReasons()},
	}
}

func checksOfResources() []Check {
	return []Check{
		{"cgroup", "controllers", Recommended, "Are the controllers there with which VMs are limited?", "/sys/fs/cgroup", []Reason{CgroupNotMounted, ControllerMissing}},
	}
}

func checksOfPassthrough() []Check {
	return []Check{
		{"iommu", "firmware", Optional, "Does firmware describe an IOMMU?", "/sys/firmware/acpi/tables", []Reason{IOMMUNotInFirmware}},
		{"iommu", "kernel", Optional, "Does the kernel use the IOMMU?", "/sys/kernel/iommu_groups, /sys/class/iommu, /proc/cmdline", []Reason{IOMMUDisabled, IOMMUAbsent}},
		{"iommu", "interrupts", Optional, "Are devices kept from forging interrupts?", "/sys/kernel/irq/*/chip_name", []Reason{InterruptRemappingOff, RemappingUndefined, IOMMUDisabled, IOMMUAbsent}},
		{"vfio", "driver", Optional, "Can devices be handed to VMs?", "/sys/bus/pci/drivers/vfio-pci, /dev/vfio/vfio, /dev/iommu", []Reason{ModuleNotLoaded, DeviceMissing}},
		{"vfio", "groups", Optional, "Do the IOMMU groups let VFs, GPUs, NVMe disks and what is bound to VFIO go to VMs?", "/sys/kernel/iommu_groups/*/devices/*/driver", []Reason{NoPassthroughDevice, GroupNotViable, IOMMUDisabled, IOMMUAbsent}},
		{"sriov", "capability", Optional, "Which devices can have VFs, and how many have they?", "/sys/bus/pci/devices/*/sriov_*", []Reason{NoSRIOVDevice}},
	}
}
