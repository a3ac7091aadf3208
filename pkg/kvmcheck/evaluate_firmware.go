package kvmcheck

import (
	"fmt"
	"strings"
)

func evaluateFirmware(facts Facts) []Finding {
	var findings []Finding
	if facts.Host.Arch == "amd64" {
		findings = append(findings, evaluateFirmwareSwitch(facts))
	}
	return append(findings, evaluateBareMetal(facts))
}

// evaluateFirmwareSwitch judges the register in which firmware switches
// virtualization. A guest that ran outweighs it.
func evaluateFirmwareSwitch(facts Facts) Finding {
	const area, check = "firmware", "virtualization"
	info, firmware := facts.CPU.Info, facts.Firmware
	off, unlocked := countOff(facts)
	switch {
	case facts.KVM.Proof.Step == StepDone && !firmware.Registers.Known:
		return found(area, check, "KVM runs guests, so it is on")
	case facts.KVM.Proof.Step == StepDone:
		return found(area, check, firmwareDetail(facts))
	case !info.Known:
		return undecided(area, check, info.Err)
	case hiddenByHypervisor(facts):
		return lacking(area, check, NestedNotExposed, "the hypervisor above decides, not firmware", "see cpu/virtualization")
	case !firmware.Registers.Known:
		return unreadFirmware(area, check, facts)
	case switchedOff(facts):
		return lacking(area, check, DisabledInFirmware, firmwareDetail(facts), enableInFirmware(info.Value))
	case off > 0 && lackedByCPU(facts):
		return lacking(area, check, CPUFlagMissing, firmware.Offered.Source+": the CPU has no hardware virtualization to switch on", "use another machine")
	case off > 0:
		return lacking(area, check, FirmwareDiffers, firmwareDetail(facts), "update the firmware, load its defaults, enable virtualization again, then power the machine off and on")
	case unlocked:
		return Finding{
			Area: area, Check: check, Status: Unknown, Reason: FirmwareUnlocked,
			Message: firmwareDetail(facts) + "; whether it works is seen when KVM starts",
			Remedy:  loadModule(vendorModule(facts)),
		}
	default:
		return found(area, check, firmwareDetail(facts))
	}
}

// unreadFirmware says why the register is not known, and what to do when only
// the driver to read it is missing.
func unreadFirmware(area, check string, facts Facts) Finding {
	firmware := facts.Firmware
	finding := undecided(area, check, firmware.Registers.Err)
	if firmware.Driver.Known && !firmware.Driver.Value {
		finding.Reason = ModuleNotLoaded
		finding.Message = firmware.Driver.Source + " does not exist: without the msr module nobody can read what firmware did"
		finding.Remedy = "modprobe msr; in a container: mount the host's /dev"
	}
	return finding
}

// countOff counts the groups of CPUs on which firmware has switched
// virtualization off, and says whether the switch of any is not locked (Intel).
func countOff(facts Facts) (off int, unlocked bool) {
	for _, group := range facts.Firmware.Registers.Value {
		switch {
		case firmwareRegister(facts.CPU.Info.Value.Vendor) == msrVMCR:
			if group.Value&vmcrSVMDisabled != 0 {
				off++
			}
		case group.Value&featureControlLocked == 0:
			unlocked = true
		case group.Value&featureControlVMX == 0:
			off++
		}
	}
	return off, unlocked
}

// switchedOff reports whether firmware is known to have virtualization off on
// every CPU, and the CPU is not known to lack it anyway.
func switchedOff(facts Facts) bool {
	registers := facts.Firmware.Registers
	if !registers.Known || hiddenByHypervisor(facts) || lackedByCPU(facts) {
		return false
	}
	off, _ := countOff(facts)
	return off > 0 && off == len(registers.Value)
}

// lackedByCPU reports whether CPUID itself says that there is no virtualization.
func lackedByCPU(facts Facts) bool {
	offered := facts.Firmware.Offered
	return offered.Known && !offered.Value
}

// hiddenByHypervisor reports whether this is a VM that is not given the
// extension: its registers say nothing about any firmware.
func hiddenByHypervisor(facts Facts) bool {
	cpu, offered := facts.CPU.Info.Value, facts.Firmware.Offered
	return cpu.Hypervisor && cpu.Extension == "" && (!offered.Known || !offered.Value)
}

// firmwareDetail says what the register holds, on which CPUs.
func firmwareDetail(facts Facts) string {
	amd := firmwareRegister(facts.CPU.Info.Value.Vendor) == msrVMCR
	name := "IA32_FEATURE_CONTROL"
	if amd {
		name = "VM_CR"
	}
	var parts []string
	for _, group := range facts.Firmware.Registers.Value {
		meaning := meaningOfFeatureControl(group.Value)
		if amd {
			meaning = meaningOfVMCR(group.Value)
		}
		parts = append(parts, fmt.Sprintf("%#x on CPUs %s: %s", group.Value, group.CPUs, meaning))
	}
	return fmt.Sprintf("%s (%s) is %s", name, facts.Firmware.Registers.Source, strings.Join(parts, "; "))
}

func meaningOfFeatureControl(value uint64) string {
	switch {
	case value&featureControlLocked == 0:
		return "not locked, so KVM may turn VMX on"
	case value&featureControlVMX == 0:
		return "locked, VMX off"
	default:
		return "locked, VMX on"
	}
}

func meaningOfVMCR(value uint64) string {
	switch {
	case value&vmcrSVMDisabled == 0:
		return "SVM on"
	case value&vmcrLock == 0:
		return "SVM off (SVMDIS), not locked"
	default:
		return "SVM off (SVMDIS), locked"
	}
}

func enableInFirmware(cpu CPUInfo) string {
	setting := "Intel Virtualization Technology (VT-x)"
	if firmwareRegister(cpu.Vendor) == msrVMCR {
		setting = "SVM Mode"
	}
	return fmt.Sprintf("enable %s in the firmware setup, then power the machine off and on", setting)
}

func evaluateBareMetal(facts Facts) Finding {
	const area, check = "machine", "bare-metal"
	hypervisor := facts.Firmware.Hypervisor
	switch {
	case !hypervisor.Known:
		return undecided(area, check, hypervisor.Err)
	case hypervisor.Value.Depth == 0:
		return found(area, check, hypervisor.Source+" shows no hypervisor")
	default:
		name := hypervisor.Value.Name
		if name == "" {
			name = "an unnamed hypervisor"
		}
		message := fmt.Sprintf("%s: this machine is a VM on %s", hypervisor.Source, name)
		if hypervisor.Value.Depth > 1 {
			message += fmt.Sprintf(", itself nested: level %d", hypervisor.Value.Depth)
		}
		return lacking(area, check, RunsInVM, message, "for production: a bare-metal machine")
	}
}
