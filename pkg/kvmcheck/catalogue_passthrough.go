package kvmcheck

// The reasons of interrupt remapping and IOMMU groups.
const (
	InterruptRemappingOff Reason = "InterruptRemappingOff"
	RemappingUndefined    Reason = "RemappingUndefined"
	NoPassthroughDevice   Reason = "NoPassthroughDevice"
	GroupNotViable        Reason = "GroupNotViable"
)

func causesOfGroups() []Cause {
	return []Cause{
		{InterruptRemappingOff, "The IOMMU translates memory accesses, but does not check interrupts. A VM could make its device send any interrupt to the host, so VFIO refuses to attach devices.", []Fix{
			{"", "remove intremap=off and nointremap from the kernel command line"},
			{"a host", "enable interrupt remapping, on some machines called x2APIC, in the firmware setup"},
			{"a VM", "its hypervisor must offer it: QEMU -device intel-iommu,intremap=on with a split irqchip"},
			{"", "a host whose VMs are trusted can do without: options vfio_iommu_type1 allow_unsafe_interrupts=1 in /etc/modprobe.d"},
		}},
		{RemappingUndefined, "On this platform the names of interrupt chips do not show whether interrupts of devices are checked.", nil},
		{NoPassthroughDevice, "No device is meant for VMs: there is no VF, no GPU and no NVMe disk, and no device is bound to a VFIO driver.", []Fix{
			{"VFs", "echo N > /sys/bus/pci/devices/ADDRESS/sriov_numvfs"},
			{"another device", "driverctl set-override ADDRESS vfio-pci"},
		}},
		{GroupNotViable, "A device shares its IOMMU group with another that a driver of the host uses. The IOMMU cannot keep them apart, so the kernel hands over the whole group or nothing: QEMU ends with \"group is not viable\".", []Fix{
			{"", "bind the neighbour to vfio-pci too (driverctl set-override ADDRESS vfio-pci), if the host can do without it"},
			{"", "move the card to a slot of its own, behind ports that have ACS; enable ACS in the firmware setup"},
			{"a device without a group", "look in dmesg for why the IOMMU leaves it out"},
		}},
	}
}
