package kvmcheck

import (
	"path"
	"slices"
)

// Check is one question that is asked of every host.
type Check struct {
	Area  string
	Name  string // may end in * for a check per page size, CPU or device
	Level Level  // in the profile kubevirt
	Asks  string
	Reads string // files, ioctls, instructions
}

// Checks lists every check, in the order of a report.
func Checks() []Check {
	return slices.Concat(checksOfKVM(), checksOfSurvey(), checksOfDevices(), checksOfResources(), checksOfPassthrough())
}

func checksOfKVM() []Check {
	return []Check{
		{"cpu", "virtualization", Required, "Do all CPUs have hardware virtualization?", "/proc/cpuinfo"},
		{"kvm", "module", Required, "Is KVM loaded or built in?", "/sys/module/kvm*"},
		{"kvm", "device", Required, "Does a guest of a few instructions run?", "/dev/kvm: KVM_GET_API_VERSION to KVM_RUN"},
		{"kvm", "nested", Optional, "Can VMs run VMs themselves?", "/sys/module/kvm_*/parameters/nested"},
	}
}

func checksOfDevices() []Check {
	return []Check{
		{"devices", "tun", Required, "Can network interfaces for VMs be made?", "/dev/net/tun, opened"},
		{"devices", "vhost-net", Required, "Can the kernel move VMs' network traffic?", "/dev/vhost-net, opened"},
	}
}

func checksOfResources() []Check {
	return []Check{
		{"memory", "hugepages*", Optional, "Are huge pages of each size set aside and free?", "/sys/kernel/mm/hugepages, /sys/devices/system/node"},
		{"cgroup", "controllers", Recommended, "Are the controllers there with which VMs are limited?", "/sys/fs/cgroup"},
	}
}

func checksOfPassthrough() []Check {
	return []Check{
		{"iommu", "firmware", Optional, "Does firmware describe an IOMMU?", "/sys/firmware/acpi/tables"},
		{"iommu", "kernel", Optional, "Does the kernel use the IOMMU?", "/sys/kernel/iommu_groups, /proc/cmdline"},
		{"vfio", "driver", Optional, "Can devices be handed to VMs?", "/sys/bus/pci/drivers/vfio-pci, /dev/vfio"},
		{"sriov", "capability", Optional, "Which devices can have VFs, and how many have they?", "/sys/bus/pci/devices/*/sriov_*"},
	}
}

// Profile says what a kind of node needs. The zero value is kubevirt.
type Profile struct {
	Name   string
	Levels map[string]Level // by "area/check" or pattern ("area/*"); others keep their own
}

// level is what a finding means under the profile.
func (p Profile) level(checks []Check, finding Finding) Level {
	if level, named := p.Levels[finding.Key()]; named {
		return level
	}
	for pattern, level := range p.Levels {
		if ok, err := path.Match(pattern, finding.Key()); ok && err == nil {
			return level
		}
	}
	for _, check := range checks {
		if ok, err := path.Match(check.Area+"/"+check.Name, finding.Key()); ok && err == nil {
			return check.Level
		}
	}
	return Optional
}

// Grade gives findings their level under the profile, and leaves out what it skips.
func (p Profile) Grade(findings []Finding) []Finding {
	checks := Checks()
	graded := make([]Finding, 0, len(findings))
	for _, finding := range findings {
		if finding.Level = p.level(checks, finding); finding.Level != Skipped {
			graded = append(graded, finding)
		}
	}
	return graded
}
