package kvmcheck

import (
	"slices"
	"strings"
)

// Reason is the cause of a finding that is not Ready. [Causes] explains each.
type Reason string

// The reasons. Each stands for one cause.
const (
	ReadFailed           Reason = "ReadFailed"
	CPUFlagMissing       Reason = "CPUFlagMissing"
	CPUFlagPartial       Reason = "CPUFlagPartial"
	NestedNotExposed     Reason = "NestedNotExposed"
	FlagUndefined        Reason = "FlagUndefined"
	ModuleNotLoaded      Reason = "ModuleNotLoaded"
	DeviceMissing        Reason = "DeviceMissing"
	PermissionDenied     Reason = "PermissionDenied"
	DeviceBusy           Reason = "DeviceBusy"
	DeviceUnusable       Reason = "DeviceUnusable"
	APIVersionMismatch   Reason = "APIVersionMismatch"
	OutOfMemory          Reason = "OutOfMemory"
	GuestFailed          Reason = "GuestFailed"
	GuestTimeout         Reason = "GuestTimeout"
	ProofNotImplemented  Reason = "ProofNotImplemented"
	NestedDisabled       Reason = "NestedDisabled"
	NoHugepages          Reason = "NoHugepages"
	HugepagesUnsupported Reason = "HugepagesUnsupported"
	NoHugepagesFree      Reason = "NoHugepagesFree"
	IOMMUNotInFirmware   Reason = "IOMMUNotInFirmware"
	IOMMUDisabled        Reason = "IOMMUDisabled"
	IOMMUAbsent          Reason = "IOMMUAbsent"
	NoSRIOVDevice        Reason = "NoSRIOVDevice"
	CgroupNotMounted     Reason = "CgroupNotMounted"
	ControllerMissing    Reason = "ControllerMissing"
)

// Cause explains a reason to a person, beyond the one line of a finding.
type Cause struct {
	Reason  Reason `json:"reason"`
	Meaning string `json:"meaning"`
	Fixes   []Fix  `json:"fixes"` // the likely one first
}

// Fix is what a person can do about a cause.
type Fix struct {
	On string `json:"on,omitempty"` // where it applies: "Debian, Ubuntu", "a container"; empty is everywhere
	Do string `json:"do"`           // a command or an instruction
}

// Causes explains every reason, in alphabetical order.
func Causes() []Cause {
	causes := slices.Concat(causesOfReading(), causesOfKVM(), causesOfSurvey(), causesOfFirmware(), causesOfMemory(), causesOfResources(),
		causesOfPassthrough(), causesOfGroups(), causesOfSafety(), causesOfConfidential(), causesOfRules())
	slices.SortFunc(causes, func(a, b Cause) int { return strings.Compare(string(a.Reason), string(b.Reason)) })
	return causes
}

func causesOfReading() []Cause {
	return []Cause{
		{ReadFailed, "A file or device could not be read, or holds what nobody can parse. Nothing can be concluded: not that the feature is there, and not that it is missing.", []Fix{
			{"a host", "run as root"},
			{"a container", "mount the host's /proc, /sys and /dev and name their root with --root; look for a read-only or masked /sys"},
		}},
	}
}

func causesOfKVM() []Cause {
	return []Cause{
		{CPUFlagMissing, "No CPU shows the vmx (Intel), svm (AMD) or sie (s390) flag. The CPU lacks hardware virtualization, or firmware hides it.", []Fix{
			{"", "enable Intel VT-x or AMD SVM in the firmware setup, then power the machine off and on (a reboot may not be enough)"},
		}},
		{CPUFlagPartial, "Some CPUs have the virtualization flag and others do not. VMs would fail depending on where they run.", []Fix{
			{"", "update firmware and microcode; enable virtualization for all sockets"},
		}},
		{NestedNotExposed, "This machine is itself a VM, and its hypervisor does not pass CPU virtualization on to it.", []Fix{
			{"libvirt, QEMU", "CPU mode host-passthrough, and kvm_intel.nested=1 or kvm_amd.nested=1 on the outer host"},
			{"VMware", "expose hardware-assisted virtualization to the guest"},
			{"a cloud", "use an instance type with nested virtualization, or a bare-metal one"},
		}},
		{FlagUndefined, "This architecture has no CPU flag for virtualization (on Arm the kernel must be started at EL2). Only /dev/kvm can tell.", nil},
		{ModuleNotLoaded, "A kernel module is neither loaded nor built in.", []Fix{
			{"", "modprobe MODULE; to keep it: echo MODULE > /etc/modules-load.d/MODULE.conf"},
			{"", "if modprobe finds no such module, install the distribution's full kernel, not its cloud or minimal flavour"},
		}},
		{DeviceMissing, "A device node does not exist. Its driver is not loaded, refused to start, or the node is hidden by a container.", []Fix{
			{"a host", "load the driver's module and look at dmesg"},
			{"a container", "give the container the host's /dev, or the device"},
		}},
		{PermissionDenied, "The device is there, but opening or using it is not allowed.", []Fix{
			{"a host", "run as root, or join the group that owns the device (ls -l shows it)"},
			{"a container", "privileged: true, or a device plugin"},
			{"SELinux", "ausearch -m avc -ts recent"},
			{"AppArmor", "dmesg | grep -i 'apparmor=\"DENIED\"'"},
			{"seccomp", "a container's profile that refuses KVM's calls: use the runtime's default profile, or an unconfined one"},
		}},
		{DeviceBusy, "Somebody else holds the device, and it takes one user at a time.", []Fix{
			{"", "fuser -v DEVICE shows who holds it"},
		}},
		{DeviceUnusable, "The device node is there, but its driver does not answer, or refuses.", []Fix{
			{"", "dmesg | grep -i kvm says why; 'disabled by bios' means the firmware setup"},
		}},
		{APIVersionMismatch, "KVM speaks another API version than 12, which every user of it requires.", []Fix{
			{"", "boot the distribution's kernel"},
		}},
		{OutOfMemory, "The kernel had no memory for a VM of one page.", []Fix{
			{"a host", "free memory"},
			{"a container", "raise its memory limit"},
		}},
		{GuestFailed, "KVM took the guest, but the CPU did not run it to its end.", []Fix{
			{"", "dmesg | grep -i kvm; update firmware and microcode"},
			{"a VM", "its hypervisor's nested virtualization is at fault: update it"},
		}},
		{GuestTimeout, "The guest of a few instructions did not end in time. A busy host and a broken one look the same, so nothing is concluded.", []Fix{
			{"", "look at the load of the host and at dmesg"},
			{"a container", "raise its CPU limit"},
			{"a VM", "its hypervisor's nested virtualization may be at fault: update it"},
		}},
		{ProofNotImplemented, "This agent has no guest code for this architecture: KVM created a VM, and more is not known.", nil},
		{NestedDisabled, "VMs of this host cannot run VMs themselves.", []Fix{
			{"", "only if VMs shall run VMs: echo 'options kvm_intel nested=1' > /etc/modprobe.d/kvm-nested.conf (kvm_amd on AMD), stop all VMs and reload the module"},
		}},
	}
}

func causesOfResources() []Cause {
	return []Cause{
		{NoHugepages, "No huge page of this size is set aside, so VMs that ask for them do not start here.", []Fix{
			{"", "at run time: echo N > /sys/kernel/mm/hugepages/hugepages-SIZEkB/nr_hugepages"},
			{"", "at boot, which is the only sure way for 1Gi: hugepagesz=1G hugepages=N on the kernel command line"},
			{"Kubernetes", "restart the kubelet afterwards: it counts them at its start"},
		}},
		{NoHugepagesFree, "All huge pages of this size are taken.", []Fix{{"", "move VMs away, or set more pages aside"}}},
		{HugepagesUnsupported, "The kernel offers no huge page size.", []Fix{{"", "boot a kernel with CONFIG_HUGETLBFS"}}},
		{CgroupNotMounted, "No cgroup hierarchy is mounted, so VMs cannot be limited.", []Fix{
			{"a host", "mount -t cgroup2 none /sys/fs/cgroup"},
			{"a container", "mount the host's /sys/fs/cgroup"},
		}},
		{ControllerMissing, "A cgroup controller with which VMs are limited is not available.", []Fix{
			{"", "remove cgroup_disable= from the kernel command line, or boot a kernel that has the controller"},
		}},
	}
}

func causesOfPassthrough() []Cause {
	return []Cause{
		{IOMMUNotInFirmware, "Firmware describes no IOMMU to the kernel, so no device can be passed to a VM safely.", []Fix{
			{"Intel", "enable VT-d in the firmware setup"},
			{"AMD", "enable AMD-Vi (IOMMU) in the firmware setup"},
			{"a VM", "give it a virtual IOMMU"},
		}},
		{IOMMUDisabled, "Firmware describes an IOMMU, but the kernel does not use it.", []Fix{
			{"Intel; Debian, Ubuntu", "add intel_iommu=on iommu=pt to GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub, reboot"},
			{"Intel; RHEL, Fedora", "grubby --update-kernel=ALL --args='intel_iommu=on iommu=pt', reboot"},
			{"", "remove intel_iommu=off, amd_iommu=off and iommu=off from the kernel command line"},
		}},
		{IOMMUAbsent, "The kernel has no IOMMU groups, and firmware describes no IOMMU.", []Fix{{"", "see IOMMUNotInFirmware"}}},
		{NoSRIOVDevice, "No PCI device shows the SR-IOV capability with a driver that supports it.", []Fix{
			{"", "use a NIC with SR-IOV; enable SR-IOV in the NIC's and the machine's firmware; load the NIC's driver"},
		}},
	}
}
