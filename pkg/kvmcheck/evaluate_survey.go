package kvmcheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// evaluateSurvey judges what KVM says it can do.
func evaluateSurvey(facts Facts) []Finding {
	findings := make([]Finding, 0, 8)
	for _, check := range checksOfSurvey() {
		findings = append(findings, evaluateSurveyed(facts, check))
	}
	return findings
}

func evaluateSurveyed(facts Facts, check Check) Finding {
	survey := facts.Survey
	finding := func(evaluate func(string, Survey) Finding) Finding {
		switch {
		case survey.Node.State == NodeAbsent:
			return lacking(check.Area, check.Name, DeviceMissing, kvmPath+" does not exist", "see kvm/device")
		case !survey.Capabilities.Known:
			return undecided(check.Area, check.Name, cmp.Or(survey.Capabilities.Err, notAsked))
		default:
			return evaluate(check.Name, survey)
		}
	}
	switch check.Name {
	case "capabilities":
		return finding(func(name string, s Survey) Finding { return evaluateEssentials(name, facts.Host.Arch, s) })
	case "vcpus":
		return finding(evaluateVCPUs)
	case "hyperv":
		return finding(evaluateHyperV)
	case "dirty-ring":
		return finding(evaluateDirtyRing)
	case "pmu":
		return finding(evaluatePMU)
	case "tsc-scaling":
		return finding(evaluateTSCScaling)
	case "guest-memfd":
		return finding(evaluateGuestMemfd)
	default:
		return evaluateFingerprint(facts)
	}
}

// essentials are the capabilities without which QEMU does not start a VM.
func essentials(arch string) []string {
	names := []string{
		"USER_MEMORY", "DESTROY_MEMORY_REGION_WORKS", "JOIN_MEMORY_REGIONS_WORKS",
		"INTERNAL_ERROR_DATA", "IOEVENTFD", "IOEVENTFD_ANY_LENGTH",
	}
	if arch == "amd64" {
		names = append(names, "SET_TSS_ADDR", "EXT_CPUID", "MP_STATE", "SIGNAL_MSI", "IRQ_ROUTING", "DEBUGREGS",
			"XSAVE", "VCPU_EVENTS", "X86_ROBUST_SINGLESTEP", "MCE", "ADJUST_CLOCK", "SET_IDENTITY_MAP_ADDR")
	}
	return names
}

func evaluateEssentials(check, arch string, survey Survey) Finding {
	const area = "kvm"
	wanted := essentials(arch)
	var missing []string
	for _, capability := range surveyedCapabilities() {
		value, asked := survey.capability(capability.name)
		switch {
		case !slices.Contains(wanted, capability.name):
		case !asked:
			return undecided(area, check, survey.Capabilities.Source+": was not asked for "+capability.name)
		case value <= 0:
			missing = append(missing, fmt.Sprintf("%s (%s)", capability.name, capability.asks))
		}
	}
	if len(missing) > 0 {
		return lacking(area, check, CapabilityMissing, survey.Capabilities.Source+" lacks "+strings.Join(missing, ", "),
			"boot the distribution's kernel, of a version that is still maintained")
	}
	return found(area, check, fmt.Sprintf("all %d that QEMU cannot do without", len(wanted)))
}

// evaluateVCPUs informs: KVM recommends as many vCPUs as there are CPUs, and
// allows far more. Where it gives no maximum, the recommendation is one.
func evaluateVCPUs(check string, survey Survey) Finding {
	const area = "kvm"
	recommended, _ := survey.capability("NR_VCPUS")
	most, _ := survey.capability("MAX_VCPUS")
	slots, _ := survey.capability("NR_MEMSLOTS")
	if most = max(most, recommended); most == 0 {
		return undecided(area, check, survey.Capabilities.Source+": neither MAX_VCPUS nor NR_VCPUS")
	}
	return found(area, check, fmt.Sprintf("at most %d in a VM, with %d memory slots; KVM recommends %d", most, slots, recommended))
}

func evaluateHyperV(check string, survey Survey) Finding {
	const area = "kvm"
	// The VMCS is of use on Intel only, and the older SYNIC gives way to the newer.
	wanted := []string{
		"HYPERV", "HYPERV_VAPIC", "HYPERV_SPIN", "HYPERV_TIME", "HYPERV_SYNIC2",
		"HYPERV_VP_INDEX", "HYPERV_TLBFLUSH", "HYPERV_SEND_IPI",
	}
	var have, missing []string
	for _, name := range wanted {
		short := strings.ToLower(strings.TrimPrefix(strings.TrimPrefix(name, "HYPERV"), "_"))
		short = cmp.Or(short, "hypercalls")
		if value, _ := survey.capability(name); value > 0 {
			have = append(have, short)
		} else {
			missing = append(missing, short)
		}
	}
	if len(missing) > 0 {
		return lacking(area, check, HyperVIncomplete, survey.Capabilities.Source+" lacks "+strings.Join(missing, ", "),
			"only for Windows VMs: boot a newer kernel, with CONFIG_KVM_HYPERV")
	}
	return found(area, check, strings.Join(have, ", "))
}

func evaluateDirtyRing(check string, survey Survey) Finding {
	const area = "kvm"
	total, _ := survey.capability("DIRTY_LOG_RING")
	ordered, _ := survey.capability("DIRTY_LOG_RING_ACQ_REL")
	if size := max(total, ordered); size > 0 {
		return found(area, check, fmt.Sprintf("up to %d KiB a vCPU", size>>10))
	}
	return lacking(area, check, DirtyRingMissing, survey.Capabilities.Source+": DIRTY_LOG_RING and DIRTY_LOG_RING_ACQ_REL are 0",
		"only for large VMs that migrate: boot a newer kernel")
}

func evaluatePMU(check string, survey Survey) Finding {
	const area = "kvm"
	x86, _ := survey.capability("PMU_CAPABILITY")
	arm, _ := survey.capability("ARM_PMU_V3")
	if x86 > 0 || arm > 0 {
		return found(area, check, "guests can count performance events")
	}
	return lacking(area, check, PMUMissing, survey.Capabilities.Source+": PMU_CAPABILITY and ARM_PMU_V3 are 0",
		"only for VMs that count events: kvm.enable_pmu=1; a VM needs a virtual PMU from its hypervisor")
}

func evaluateTSCScaling(check string, survey Survey) Finding {
	const area = "kvm"
	frequency := ""
	if survey.TSCKHz.Known {
		frequency = fmt.Sprintf("; the host's TSC has %d.%03d MHz", survey.TSCKHz.Value/1000, survey.TSCKHz.Value%1000)
	}
	if value, _ := survey.capability("TSC_CONTROL"); value > 0 {
		return found(area, check, "guests can have their own TSC frequency"+frequency)
	}
	return lacking(area, check, TSCScalingMissing, survey.Capabilities.Source+": TSC_CONTROL is 0"+frequency,
		"only for VMs with a fixed TSC frequency: keep them on hosts of the same one")
}

func evaluateGuestMemfd(check string, survey Survey) Finding {
	const area = "kvm"
	types := "default"
	for _, capability := range survey.Capabilities.Value {
		if capability.Name == capVMTypes && len(capability.Means) > 0 {
			types = strings.Join(capability.Means, ", ")
		}
	}
	if value, _ := survey.capability("GUEST_MEMFD"); value > 0 {
		return found(area, check, "types of VMs: "+types)
	}
	return lacking(area, check, GuestMemfdMissing, survey.Capabilities.Source+": GUEST_MEMFD is 0; types of VMs: "+types,
		"only for confidential VMs: boot a newer kernel, built for them")
}

func evaluateFingerprint(facts Facts) Finding {
	const area, check = "kvm", "fingerprint"
	print := facts.Fingerprint
	arch := facts.Host.Arch
	switch {
	case print.Known:
		return found(area, check, describe(print))
	case facts.Survey.Node.State == NodeAbsent:
		return lacking(area, check, DeviceMissing, kvmPath+" does not exist", "see kvm/device")
	case arch != "" && arch != "amd64":
		return Finding{Area: area, Check: check, Status: Unknown, Reason: FingerprintUndefined, Message: print.Source + ": not defined for " + arch}
	default:
		return undecided(area, check, cmp.Or(print.Err, notAsked))
	}
}
