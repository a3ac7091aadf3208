package kvmcheck

// The reasons about confidential VMs.
const (
	ConfidentialUnsupported Reason = "ConfidentialUnsupported"
	ConfidentialDisabled    Reason = "ConfidentialDisabled"
	ConfidentialIncoherent  Reason = "ConfidentialIncoherent"
	ConfidentialExhausted   Reason = "ConfidentialExhausted"
	RealmsUndefined         Reason = "RealmsUndefined"
)

func checksOfConfidential() []Check {
	return []Check{
		{
			"guests", "confidential", Optional, "Which VMs can be kept secret from this host, and how many more?",
			"/sys/module/kvm_{amd,intel}/parameters, CPUID 0x8000001f, /dev/sev, /sys/fs/cgroup/misc.{capacity,current}, " + secureExecution,
			[]Reason{ConfidentialUnsupported, ConfidentialDisabled, ConfidentialIncoherent, ConfidentialExhausted, RealmsUndefined, ModuleNotLoaded, DeviceMissing},
		},
	}
}

func causesOfConfidential() []Cause {
	return []Cause{
		{ConfidentialUnsupported, "Neither CPU nor platform has a technology that keeps VMs secret from their host, or this machine is itself a VM, which is never given one.", []Fix{
			{"", "only for confidential VMs: an AMD EPYC with SEV, an Intel Xeon with TDX, or an IBM Z with Secure Execution"},
		}},
		{ConfidentialDisabled, "The CPU can keep VMs secret from their host, but firmware or the kernel does not use it.", []Fix{
			{"AMD", "in the firmware setup: SMEE (memory encryption) on, ASIDs set aside for SEV-ES (minimum SEV non-ES ASID above 1); for SEV-SNP also SNP memory coverage (RMP table), IOMMU on"},
			{"AMD", "on the kernel command line: kvm_amd.sev=1 kvm_amd.sev_es=1 kvm_amd.sev_snp=1, and for SEV-SNP no iommu=pt; Linux 6.11 or newer; dmesg | grep -i -e sev -e ccp"},
			{"Intel", "in the firmware setup: memory encryption (TME-MT) and TDX on, keys set aside for TDX, SEAM loader on"},
			{"Intel", "on the kernel command line: kvm_intel.tdx=1; Linux 6.16 or newer; dmesg | grep -i tdx"},
			{"IBM Z", "prot_virt=1 on the kernel command line"},
		}},
		{ConfidentialIncoherent, "KVM contradicts itself or the CPU: SEV-SNP builds on SEV-ES, and SEV-ES on SEV. Some tools would offer what others hide.", []Fix{
			{"", "reload kvm_amd with sev, sev_es and sev_snp all on, or boot the distribution's kernel; dmesg | grep -i sev"},
		}},
		{ConfidentialExhausted, "Confidential VMs can run here, but every ASID (AMD) or key (Intel) is taken.", []Fix{
			{"", "stop or move a confidential VM"},
			{"AMD", "the firmware setup divides the ASIDs between SEV and SEV-ES with SEV-SNP"},
		}},
		{RealmsUndefined, "Arm keeps VMs secret in realms (CCA, on CPUs with RME). No released kernel says whether its KVM can make them.", nil},
	}
}
