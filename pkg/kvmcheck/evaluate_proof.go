package kvmcheck

import (
	"fmt"
	"slices"
)

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
	reason := reasonOfFailure(proof)
	message := fmt.Sprintf("%s: step %s: %s", kvmPath, proof.Step, proof.Err)
	switch reason {
	case ReadFailed:
		return undecided(area, check, message)
	case ProofNotImplemented:
		return Finding{Area: area, Check: check, Status: Unknown, Reason: reason, Message: message}
	case DescriptorsExhausted:
		return exhausted(area, check, message)
	case GuestTimeout: // a host under load, or a small CPU limit, is as likely as a broken one
		return Finding{Area: area, Check: check, Status: Unknown, Reason: reason, Message: message, Remedy: failureRemedy(reason)}
	default:
		return lacking(area, check, reason, message, failureRemedy(reason))
	}
}

// exhausted is a finding that says nothing about the device.
func exhausted(area, check, message string) Finding {
	return Finding{
		Area: area, Check: check, Status: Unknown, Reason: DescriptorsExhausted, Message: message,
		Remedy: "raise the limit of open files of this process (ulimit -n) or of the host (sysctl fs.file-max)",
	}
}

// reasonOfFailure tells the causes apart by the step and what the kernel said.
func reasonOfFailure(proof Proof) Reason {
	switch proof.Errno {
	case "EMFILE", "ENFILE":
		return DescriptorsExhausted
	case "ENOMEM":
		return OutOfMemory
	case "EPERM", "EACCES":
		return PermissionDenied
	}
	switch proof.Step {
	case StepAPIVersion:
		switch {
		case proof.Errno == "ENOTTY", proof.Errno == "ENODEV": // another driver's node, or none's
			return DeviceUnusable
		case proof.Errno == "" && proof.APIVersion != 0:
			return APIVersionMismatch
		}
	case StepCreateVM, StepMapMemory, StepCreateVCPU:
		switch {
		case proof.Errno == "EBUSY", proof.Errno == "EIO" && proof.Step == StepCreateVM:
			return VirtualizationInUse // a CPU's is enabled, and not by KVM: EBUSY, since Linux 6.12 EIO
		case slices.Contains([]string{"ENODEV", "ENXIO", "ENOTSUP", "EIO", "EFAULT"}, proof.Errno): // EFAULT: VMXON faulted
			return DeviceUnusable
		}
	case StepRun:
		switch {
		case proof.Exits == 0:
			return ProofNotImplemented
		case proof.TimedOut:
			return GuestTimeout
		default:
			return GuestFailed
		}
	}
	return ReadFailed
}

func failureRemedy(reason Reason) string {
	switch reason {
	case VirtualizationInUse:
		return "another hypervisor (VirtualBox, VMware, a second KVM module) holds the CPU's virtualization: stop it and unload its module; dmesg | grep -i 'enabling virtualization' names the CPU"
	case PermissionDenied:
		return "a security policy forbids it: look at the audit log (ausearch -m avc; dmesg | grep -i -e apparmor -e denied), and at the container's seccomp profile"
	case OutOfMemory:
		return "free memory on the host, or raise the memory limit of this container"
	case APIVersionMismatch:
		return "this kernel is not a Linux that QEMU can use: boot the distribution's kernel"
	case GuestTimeout:
		return "look at the load of the host and the CPU limit of this container, then at dmesg | grep -i kvm; if this machine is a VM, its hypervisor's nested virtualization may be broken"
	case GuestFailed:
		return "dmesg | grep -i kvm; update firmware and microcode"
	default:
		return "dmesg | grep -i kvm: virtualization may be disabled in firmware; ls -l " + kvmPath + " shows 10, 232 when it is KVM's"
	}
}
