package kvmcheck

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Evaluate judges facts for a kind of node. It is pure: the same facts give
// the same findings, in the order of [Checks], then those of the profile's rules.
func Evaluate(facts Facts, profile Profile) []Finding {
	return profile.Grade(slices.Concat(
		evaluateKVM(facts),
		evaluateSurvey(facts),
		evaluateDevices(facts),
		evaluateFirmware(facts),
		evaluateMemory(facts),
		evaluateResources(facts),
		evaluatePassthrough(facts),
		evaluateSafety(facts),
		evaluateConfidential(facts),
		profile.judge(facts),
	))
}

func evaluateKVM(facts Facts) []Finding {
	return []Finding{
		evaluateCPU(facts),
		evaluateModule(facts),
		evaluateProof(facts),
		evaluateNested(facts),
	}
}

func evaluateDevices(facts Facts) []Finding {
	return []Finding{
		evaluateNode(facts.Devices.Tun, "tun", "tun", "pods' and VMs' network interfaces are made through it"),
		evaluateNode(facts.Devices.VhostNet, "vhost-net", "vhost_net", "it moves a VM's network traffic in the kernel"),
		evaluateNode(facts.Devices.VhostVsock, "vhost-vsock", "vhost_vsock", "VMs and the host talk through it without a network"),
	}
}

func evaluateResources(facts Facts) []Finding {
	return []Finding{evaluateCgroup(facts)}
}

func evaluatePassthrough(facts Facts) []Finding {
	return []Finding{
		evaluateIOMMUTable(facts),
		evaluateIOMMU(facts),
		evaluateRemapping(facts),
		evaluateVFIO(facts),
		evaluateCandidates(facts),
		evaluateSRIOV(facts),
	}
}

// Verdict is the word for the whole node: NotReady when anything required is
// definitely missing, else Unknown when anything required is undecided.
func Verdict(findings []Finding) Status {
	verdict := Ready
	for _, finding := range findings {
		if finding.Level != Required {
			continue
		}
		switch finding.Status {
		case NotReady:
			return NotReady
		case Unknown:
			verdict = Unknown
		}
	}
	return verdict
}

func evaluateCPU(facts Facts) Finding {
	const area, check = "cpu", "virtualization"
	info := facts.CPU.Info
	if !info.Known {
		return undecided(area, check, info.Err)
	}
	cpu := info.Value
	switch {
	case cpu.Extension != "" && cpu.Extended == cpu.CPUs:
		return found(area, check, fmt.Sprintf("%s (%s) on all %d CPUs", extensionName(cpu.Extension), cpu.Extension, cpu.CPUs))
	case cpu.Extension != "":
		return lacking(area, check, CPUFlagPartial,
			fmt.Sprintf("%s: flag %s on %d of %d CPUs", info.Source, cpu.Extension, cpu.Extended, cpu.CPUs),
			"update firmware and microcode: all CPUs must offer the same virtualization features")
	case facts.KVM.Proof.Step == StepDone:
		return found(area, check, fmt.Sprintf("KVM runs guests on this %s CPU", facts.Host.Arch))
	case facts.Host.Arch != "amd64" && facts.Host.Arch != "s390x":
		return Finding{
			Area: area, Check: check, Status: Unknown, Reason: FlagUndefined,
			Message: fmt.Sprintf("%s: %s has no CPU flag for virtualization; only /dev/kvm can tell", info.Source, facts.Host.Arch),
		}
	case switchedOff(facts):
		return lacking(area, check, DisabledInFirmware,
			fmt.Sprintf("%s: no vmx or svm flag, and %s", info.Source, firmwareDetail(facts)), enableInFirmware(cpu))
	case cpu.Hypervisor:
		return lacking(area, check, NestedNotExposed,
			fmt.Sprintf("%s: no vmx or svm flag, and the hypervisor flag is set: this machine is a VM without nested virtualization", info.Source),
			"enable nested virtualization for this VM at its hypervisor or cloud provider (CPU mode host-passthrough), or use a bare-metal machine")
	default:
		return lacking(area, check, CPUFlagMissing,
			fmt.Sprintf("%s: no vmx, svm or sie flag on %d CPUs (%s)", info.Source, cpu.CPUs, orUnnamed(cpu.Model)),
			"enable Intel VT-x or AMD SVM in the firmware setup, then power the machine off and on")
	}
}

func extensionName(extension string) string {
	switch extension {
	case extensionIntel:
		return "Intel VT-x"
	case extensionAMD:
		return "AMD-V"
	default:
		return "SIE"
	}
}

func orUnnamed(name string) string {
	if name == "" {
		return "unnamed model"
	}
	return name
}

func evaluateModule(facts Facts) Finding {
	const area, check = "kvm", "module"
	modules := facts.KVM.Modules
	if !modules.Known {
		return undecided(area, check, modules.Err)
	}
	if slices.Contains(modules.Value, "kvm") {
		return found(area, check, strings.Join(modules.Value, ", ")+" loaded or built in")
	}
	if facts.KVM.Proof.Node.State == NodeOpened {
		return found(area, check, "built into the kernel")
	}
	return lacking(area, check, ModuleNotLoaded, "/sys/module/kvm does not exist", loadModule(vendorModule(facts)))
}

// vendorModule names the module that drives this CPU's virtualization.
func vendorModule(facts Facts) string {
	switch facts.CPU.Info.Value.Extension {
	case extensionIntel:
		return "kvm_intel"
	case extensionAMD:
		return "kvm_amd"
	default:
		return "kvm"
	}
}

func loadModule(module string) string {
	return fmt.Sprintf("modprobe %s; to keep it: echo %s > /etc/modules-load.d/%s.conf; if it fails, dmesg | grep -i kvm says why",
		module, module, strings.ReplaceAll(module, "_", "-"))
}

func evaluateNested(facts Facts) Finding {
	const area, check = "kvm", "nested"
	if module, nested, ok := vendorNested(facts); ok {
		switch {
		case !nested.Known:
			return undecided(area, check, nested.Err)
		case nested.Value:
			return found(area, check, nested.Source+" is on: VMs can run VMs")
		default:
			return lacking(area, check, NestedDisabled, nested.Source+" is off: VMs cannot run VMs themselves",
				fmt.Sprintf("only if VMs shall run VMs: echo 'options %s nested=1' > /etc/modprobe.d/kvm-nested.conf, then reload %s", module, module))
		}
	}
	if !facts.KVM.Modules.Known {
		return undecided(area, check, facts.KVM.Modules.Err)
	}
	return lacking(area, check, NestedDisabled, "no KVM module has a parameter nested", "load the CPU vendor's KVM module first")
}

// vendorNested picks the nested parameter of the module that drives this CPU,
// or of the first module that has one.
func vendorNested(facts Facts) (module string, nested Reading[bool], ok bool) {
	module = vendorModule(facts)
	if nested, ok = facts.KVM.Nested[module]; ok {
		return module, nested, true
	}
	for _, module := range slices.Sorted(maps.Keys(facts.KVM.Nested)) {
		return module, facts.KVM.Nested[module], true
	}
	return "", nested, false
}

// evaluateNode judges a device node that QEMU opens itself.
func evaluateNode(node Node, check, module, purpose string) Finding {
	const area = "devices"
	switch node.State {
	case NodeOpened:
		return found(area, check, node.Path+" opens")
	case NodeAbsent:
		return lacking(area, check, DeviceMissing, node.Path+" does not exist; "+purpose, "modprobe "+module)
	case NodeRefused:
		return refusedNode(area, check, node, module)
	default:
		return undecided(area, check, node.Err)
	}
}

// refusedNode gives the reason for an open that failed.
func refusedNode(area, check string, node Node, module string) Finding {
	switch node.Errno {
	case "EACCES", "EPERM":
		return lacking(area, check, PermissionDenied, node.Err,
			fmt.Sprintf("run as root; in a container: privileged, or allow the device; ls -l %s shows its mode", node.Path))
	case "EBUSY":
		return lacking(area, check, DeviceBusy, node.Err, "fuser -v "+node.Path+" shows who holds it")
	case "EMFILE", "ENFILE":
		return exhausted(area, check, node.Err)
	case "ENODEV", "ENXIO", "ENOENT":
		return lacking(area, check, DeviceUnusable, node.Err+": the node is there, its driver is not", loadModule(module))
	default:
		return undecided(area, check, node.Err)
	}
}
