package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
)

func evaluateSafety(facts Facts) []Finding {
	var findings []Finding
	x86 := facts.Host.Arch == "amd64"
	if x86 {
		findings = append(findings, evaluateTSC(facts))
	}
	findings = append(findings, evaluateClocksource(facts), evaluateVulnerabilities(facts), evaluateSMT(facts))
	if x86 {
		findings = append(findings, evaluateMicrocode(facts))
	}
	return append(findings, evaluateLockdown(facts), evaluateConfinement(facts))
}

func evaluateTSC(facts Facts) Finding {
	const area, check = "time", "tsc"
	info := facts.CPU.Info
	if !info.Known {
		return undecided(area, check, info.Err)
	}
	var missing []string
	for _, flag := range []string{"constant_tsc", "nonstop_tsc"} {
		if !slices.Contains(info.Value.Flags, flag) {
			missing = append(missing, flag)
		}
	}
	if len(missing) > 0 {
		return lacking(area, check, TSCNotInvariant,
			fmt.Sprintf("%s: not all CPUs have the flag %s", info.Source, strings.Join(missing, ", ")),
			"only for VMs with a fixed TSC: a CPU with an invariant TSC; a VM needs it from its hypervisor (libvirt: invtsc)")
	}
	message := "invariant: constant_tsc, nonstop_tsc"
	if khz := facts.Time.TSCKHz; khz.Known {
		message += fmt.Sprintf(", %d kHz", khz.Value)
	}
	return found(area, check, message)
}

// cpuClocksources are the ones that KVM can hand to VMs without an exit per
// reading, or that guests of other architectures read themselves.
func cpuClocksources() []string {
	return []string{"tsc", "hyperv_clocksource_tsc_page", "arch_sys_counter", "tod", "riscv_clocksource", "timebase"}
}

func evaluateClocksource(facts Facts) Finding {
	const area, check = "time", "clocksource"
	current, available := facts.Time.Clocksource, facts.Time.Available
	if !current.Known {
		return undecided(area, check, current.Err)
	}
	if !available.Known {
		return undecided(area, check, available.Err)
	}
	if !slices.Contains(available.Value, current.Value) {
		return undecided(area, check, fmt.Sprintf("%s is %q, which %s does not list", current.Source, clipText(current.Value), available.Source))
	}
	if slices.Contains(cpuClocksources(), current.Value) {
		return found(area, check, current.Value)
	}
	message := fmt.Sprintf("%s is %s", current.Source, clipText(current.Value))
	switch {
	case slices.Contains(available.Value, "tsc"):
		return lacking(area, check, ClocksourceNotTSC, message+", although tsc is available", "echo tsc > "+current.Source)
	case facts.CPU.Info.Value.Hypervisor:
		return lacking(area, check, ClocksourceNotTSC, message+": VMs on this VM read their clocks slowly",
			"give this VM the invariant TSC (libvirt: invtsc), or use a bare-metal machine")
	default:
		return lacking(area, check, TSCUnstable, message+", and tsc is not available", "dmesg | grep -i -e tsc -e clocksource says why; update the firmware")
	}
}

func evaluateVulnerabilities(facts Facts) Finding {
	const area, check = "safety", "mitigations"
	all := facts.Safety.Vulnerabilities
	if !all.Known {
		return undecided(area, check, all.Err)
	}
	var open, unsure []string
	unread := ""
	for _, vulnerability := range all.Value {
		if !vulnerability.Text.Known {
			unread = vulnerability.Text.Err
			continue
		}
		text := fmt.Sprintf("%s (%s)", clipText(vulnerability.Name), clipText(vulnerability.Text.Value))
		switch state, _ := parseVulnerability(vulnerability.Text.Value); state {
		case exposureOpen:
			open = append(open, text)
		case exposureUnknown:
			unsure = append(unsure, text)
		}
	}
	switch {
	case len(open) > 0:
		return lacking(area, check, CPUVulnerable, all.Source+": "+strings.Join(open, "; "),
			"update microcode, kernel and firmware, and reboot without mitigations=off; a VM gets its protections from its hypervisor")
	case unread != "":
		return undecided(area, check, unread)
	case len(unsure) > 0:
		return Finding{Area: area, Check: check, Status: Unknown, Reason: MitigationUnknown, Message: all.Source + ": " + strings.Join(unsure, "; ")}
	default:
		return found(area, check, fmt.Sprintf("none of %d that matter to VMs is open", len(all.Value)))
	}
}

func evaluateSMT(facts Facts) Finding {
	const area, check = "safety", "smt"
	all := facts.Safety.Vulnerabilities
	if !all.Known {
		return undecided(area, check, all.Err)
	}
	var names []string
	unread := ""
	for _, vulnerability := range all.Value {
		if !vulnerability.Text.Known {
			unread = vulnerability.Text.Err
		} else if _, smt := parseVulnerability(vulnerability.Text.Value); smt {
			names = append(names, clipText(vulnerability.Name))
		}
	}
	switch {
	case len(names) > 0:
		return lacking(area, check, SMTVulnerable,
			fmt.Sprintf("%s: %s can be used across hyperthreads (SMT is %s)", all.Source, strings.Join(names, ", "), smtState(facts.Safety)),
			"where VMs do not trust each other: echo off > "+smtDir+"/control, or mitigations=auto,nosmt on the kernel command line, or whole cores for each VM")
	case unread != "":
		return undecided(area, check, unread)
	default:
		return found(area, check, fmt.Sprintf("no known flaw needs it off (SMT is %s)", smtState(facts.Safety)))
	}
}

func smtState(facts SafetyFacts) string {
	switch active := facts.SMTActive; {
	case !active.Known:
		return "unknown"
	case active.Value:
		return "on"
	default:
		return "off"
	}
}

func evaluateMicrocode(facts Facts) Finding {
	const area, check = "safety", "microcode"
	info := facts.CPU.Info
	if !info.Known {
		return undecided(area, check, info.Err)
	}
	var parts []string
	for _, group := range info.Value.Microcode {
		parts = append(parts, fmt.Sprintf("%#x on CPUs %s", group.Value, group.CPUs))
	}
	switch len(parts) {
	case 0:
		return Finding{Area: area, Check: check, Status: Unknown, Reason: MicrocodeHidden, Message: info.Source + " shows no microcode revision"}
	case 1:
		return found(area, check, fmt.Sprintf("%#x on all CPUs", info.Value.Microcode[0].Value))
	default:
		return lacking(area, check, MicrocodeDiffers, info.Source+": "+strings.Join(parts, ", "), "update microcode and firmware, and reboot")
	}
}

func evaluateLockdown(facts Facts) Finding {
	const area, check = "safety", "lockdown"
	lockdown := facts.Safety.Lockdown
	switch {
	case !lockdown.Known:
		return undecided(area, check, lockdown.Err)
	case lockdown.Value == "confidentiality":
		return lacking(area, check, KernelConfidential, lockdown.Source+" is confidentiality: BPF metrics are missing, VMs are not touched",
			"boot with lockdown=integrity where the policy allows it")
	default:
		return found(area, check, clipText(lockdown.Value))
	}
}

func evaluateConfinement(facts Facts) Finding {
	const area, check = "safety", "confinement"
	selinux, apparmor := facts.Safety.SELinux, facts.Safety.AppArmor
	switch {
	case selinux.Known && selinux.Value == "enforcing":
		return found(area, check, "SELinux is enforcing")
	case apparmor.Known && apparmor.Value:
		return found(area, check, "AppArmor is on")
	case !selinux.Known:
		return undecided(area, check, selinux.Err)
	case !apparmor.Known:
		return undecided(area, check, apparmor.Err)
	default:
		return lacking(area, check, VMsNotConfined, fmt.Sprintf("SELinux is %s (%s), AppArmor is off (%s)", selinux.Value, selinux.Source, apparmor.Source),
			"setenforce 1, or boot with apparmor=1 security=apparmor")
	}
}
