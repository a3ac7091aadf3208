package kvmcheck

// The reasons about firmware and what is above the kernel.
const (
	DisabledInFirmware Reason = "DisabledInFirmware"
	FirmwareDiffers    Reason = "FirmwareDiffers"
	FirmwareUnlocked   Reason = "FirmwareUnlocked"
	RunsInVM           Reason = "RunsInVM"
)

// checksOfFirmware asks about the first only on x86, the only architecture
// with a switch that Linux can read.
func checksOfFirmware() []Check {
	return []Check{
		{"firmware", "virtualization", Required, "Does firmware leave the CPUs' virtualization on?", "/dev/cpu/*/msr: IA32_FEATURE_CONTROL (0x3a), VM_CR (0xc0010114); /dev/cpu/*/cpuid", []Reason{NestedNotExposed, DisabledInFirmware, CPUFlagMissing, FirmwareDiffers, FirmwareUnlocked, ModuleNotLoaded}},
		{"machine", "bare-metal", Optional, "Does the kernel run on bare metal, not in a VM?", "/proc/cpuinfo, CPUID 0x40000000, /sys/hypervisor/type, /sys/class/dmi/id, /proc/sysinfo", []Reason{RunsInVM}},
	}
}

func causesOfFirmware() []Cause {
	return []Cause{
		{DisabledInFirmware, "The CPUs have hardware virtualization, and firmware has switched it off and locked the switch until the next reset. No command can turn it on. On Intel a kernel without KVM locks it, too, and a measured launch (TXT) has a switch of its own.", []Fix{
			{"Intel", "enable Intel Virtualization Technology (VT-x, VMX) in the firmware setup, then power the machine off and on (a reboot may not be enough)"},
			{"AMD", "enable SVM Mode in the firmware setup, then power the machine off and on"},
			{"", "if the setup already says enabled, update the firmware; a dead CMOS battery loses the setting"},
		}},
		{FirmwareDiffers, "Firmware has switched virtualization off on some CPUs and left it on for others. KVM refuses such a machine.", []Fix{
			{"", "update the firmware, load its defaults, enable virtualization again, then power the machine off and on"},
		}},
		{FirmwareUnlocked, "Firmware has neither enabled virtualization nor locked it. Linux enables it when KVM is part of the kernel; until KVM has answered, nobody can tell.", []Fix{
			{"", "modprobe kvm_intel; if it fails, boot a kernel with KVM, or enable Intel Virtualization Technology in the firmware setup"},
		}},
		{RunsInVM, "This machine is itself a VM. Its own VMs are nested: they are slower, and they depend on the hypervisor above for features, security and migration.", []Fix{
			{"", "for production, use a bare-metal machine or a bare-metal instance type"},
		}},
	}
}
