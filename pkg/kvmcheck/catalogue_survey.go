package kvmcheck

// The reasons of the proof and the survey of KVM. Each stands for one cause.
const (
	VirtualizationInUse  Reason = "VirtualizationInUse"
	DescriptorsExhausted Reason = "DescriptorsExhausted"
	CapabilityMissing    Reason = "CapabilityMissing"
	HyperVIncomplete     Reason = "HyperVIncomplete"
	DirtyRingMissing     Reason = "DirtyRingMissing"
	PMUMissing           Reason = "PMUMissing"
	TSCScalingMissing    Reason = "TSCScalingMissing"
	GuestMemfdMissing    Reason = "GuestMemfdMissing"
	FingerprintUndefined Reason = "FingerprintUndefined"
)

func checksOfSurvey() []Check {
	const asks = "/dev/kvm: KVM_CHECK_EXTENSION"
	return []Check{
		{"kvm", "capabilities", Recommended, "Has KVM all that QEMU cannot do without?", asks, nodeReasons(CapabilityMissing)},
		{"kvm", "vcpus", Optional, "How many vCPUs and memory slots can a VM have?", asks + " MAX_VCPUS, NR_VCPUS, NR_MEMSLOTS", nodeReasons()},
		{"kvm", "hyperv", Optional, "Can Windows guests be told that they are VMs?", asks + " HYPERV*", nodeReasons(HyperVIncomplete)},
		{"kvm", "dirty-ring", Optional, "Can memory that changes be followed without long stops?", asks + " DIRTY_LOG_RING, DIRTY_LOG_RING_ACQ_REL", nodeReasons(DirtyRingMissing)},
		{"kvm", "pmu", Optional, "Can guests count performance events?", asks + " PMU_CAPABILITY, ARM_PMU_V3", nodeReasons(PMUMissing)},
		{"kvm", "tsc-scaling", Optional, "Can guests come from hosts of another TSC frequency?", asks + " TSC_CONTROL; KVM_GET_TSC_KHZ", nodeReasons(TSCScalingMissing)},
		{"kvm", "guest-memfd", Optional, "Can guest memory be kept from the host?", asks + " GUEST_MEMFD, VM_TYPES", nodeReasons(GuestMemfdMissing)},
		{"kvm", "fingerprint", Optional, "What can guests see of the CPU, for live migration?", "/dev/kvm: KVM_GET_SUPPORTED_CPUID, KVM_GET_MSR_FEATURE_INDEX_LIST", nodeReasons(FingerprintUndefined)},
	}
}

// nodeReasons adds reasons to those for which /dev/kvm itself does not answer.
func nodeReasons(more ...Reason) []Reason {
	return append([]Reason{DeviceMissing, PermissionDenied, DeviceBusy, DeviceUnusable, DescriptorsExhausted}, more...)
}

func causesOfSurvey() []Cause {
	return []Cause{
		{VirtualizationInUse, "KVM could not enable the virtualization of a CPU, because somebody else has enabled it (KVM_CREATE_VM: EBUSY, since Linux 6.12 EIO). Only one hypervisor at a time can have it.", []Fix{
			{"", "stop VirtualBox, VMware or another hypervisor and unload its module (lsmod | grep -E 'vboxdrv|vmmon')"},
			{"", "after a crash kernel or a firmware hypervisor: power the machine off and on"},
		}},
		{DescriptorsExhausted, "The process or the host has no file descriptor left, so a device could not be asked. This says nothing about the device.", []Fix{
			{"a process", "ulimit -n, or LimitNOFILE= of its unit"},
			{"a host", "sysctl fs.file-max"},
		}},
		{CapabilityMissing, "This KVM lacks something without which QEMU does not start VMs.", []Fix{
			{"", "boot the distribution's kernel, of a version that is still maintained"},
		}},
		{HyperVIncomplete, "KVM lacks some of Hyper-V's interfaces by which Windows guests run faster. VMs that ask for them do not start here.", []Fix{
			{"", "boot a newer kernel with CONFIG_KVM_HYPERV; or do not ask for them in the VMs' features.hyperv"},
		}},
		{DirtyRingMissing, "KVM cannot give changed memory page by page, only as a bitmap of the whole VM. Live migration of large VMs stops them longer.", []Fix{
			{"", "boot Linux 5.11 or later on x86, 6.2 or later on Arm"},
		}},
		{PMUMissing, "Guests cannot count performance events: the module's parameter is off, or the CPU shows no counters.", []Fix{
			{"x86", "echo 'options kvm enable_pmu=1' > /etc/modprobe.d/kvm-pmu.conf, then reload KVM"},
			{"a VM", "its hypervisor must give it a virtual PMU"},
		}},
		{TSCScalingMissing, "The CPU cannot give guests a TSC of another frequency than its own. VMs with a fixed TSC frequency start and migrate only among hosts of the same one.", []Fix{
			{"", "schedule such VMs by TSC frequency, as KubeVirt does by its node label"},
			{"a VM", "its hypervisor must expose TSC scaling"},
		}},
		{GuestMemfdMissing, "KVM has no guest memory that the host cannot map. Confidential VMs of newer kinds (SEV-SNP, TDX) need it.", []Fix{
			{"", "boot Linux 6.8 or later, built for a kind of confidential VM that this CPU has"},
		}},
		{FingerprintUndefined, "A fingerprint describes an x86 CPU as KVM shows it to guests. For this architecture it is not defined.", nil},
	}
}
