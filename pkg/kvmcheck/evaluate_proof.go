package kvmcheck

import "fmt"

// evaluateProof judges /dev/kvm by what it did, not by its being there.
func evaluateProof(facts Facts) Finding {
	const area, check = "kvm", "device"
	proof := facts.KVM.Proof
	switch {
	case proof.Step == StepDone:
		return found(area, check, fmt.Sprintf("a guest ran on %s (API version %d)", kvmPath, proof.APIVersion))
	case proof.Node.State == NodeAbsent:
		return lacking(area, check, DeviceMissing, missingKVM(facts), missingKVMRemedy(facts))
	case proof.Node.State == NodeRefused:
		return refusedNode(area, check, proof.Node, vendorModule(facts))
	case proof.Node.State != NodeOpened:
		return undecided(area, check, proof.Err)
	}
	return failedProof(area, check, proof)
}

func missingKVM(facts Facts) string {
	modules := facts.KVM.Modules
	switch {
	case modules.Known && len(modules.Value) > 0:
		return fmt.Sprintf("%s does not exist, although %s exists: the CPU's KVM driver did not start", kvmPath, modulesDir+"/kvm")
	case modules.Known:
		return kvmPath + " does not exist: no KVM module is loaded"
	default:
		return kvmPath + " does not exist"
	}
}

func missingKVMRemedy(facts Facts) string {
	info := facts.CPU.Info
	if switchedOff(facts) {
		return "see firmware/virtualization: " + enableInFirmware(info.Value)
	}
	if info.Known && info.Value.Extension == "" && (facts.Host.Arch == "amd64" || facts.Host.Arch == "s390x") {
		return "first see cpu/virtualization: without the CPU's extension no KVM driver starts"
	}
	return loadModule(vendorModule(facts))
}

// failedProof gives the reason for a proof that began and did not end.
func failedProof(area, check string, proof Proof) Finding {
	message := fmt.Sprintf("%s: step %s: %s", kvmPath, proof.Step, proof.Err)
	lack := func(reason Reason, remedy string) Finding {
		return lacking(area, check, reason, message, remedy)
	}
	switch proof.Errno {
	case "EBUSY":
		return lack(DeviceBusy, "another hypervisor (VirtualBox, VMware, a second KVM module) holds the CPU's virtualization: stop it and unload its module")
	case "EPERM", "EACCES":
		return lack(PermissionDenied, "a security policy forbids it: look at the audit log (ausearch -m avc; dmesg | grep -i -e apparmor -e denied)")
	case "ENOMEM":
		return lack(OutOfMemory, "free memory on the host, or raise the memory limit of this container")
	case "ENODEV", "ENXIO", "EOPNOTSUPP", "EIO":
		return lack(DeviceUnusable, "dmesg | grep -i kvm: virtualization may be disabled in firmware")
	}
	switch {
	case proof.Step == StepAPIVersion && proof.APIVersion != 0:
		return lack(APIVersionMismatch, "this kernel is not a Linux that QEMU can use: boot the distribution's kernel")
	case proof.Step == StepRun && proof.Exits == 0:
		return Finding{Area: area, Check: check, Status: Unknown, Reason: ProofNotImplemented, Message: message}
	case proof.Step == StepRun && proof.TimedOut:
		return lack(GuestTimeout, "dmesg | grep -i kvm; if this machine is a VM, its hypervisor's nested virtualization may be broken")
	case proof.Step == StepRun:
		return lack(GuestFailed, "dmesg | grep -i kvm; update firmware and microcode")
	default:
		return undecided(area, check, message)
	}
}
