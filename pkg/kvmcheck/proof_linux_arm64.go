package kvmcheck

import (
	"os"
	"runtime"
	"unsafe"
)

// KVM's Arm calls (Linux include/uapi/linux/kvm.h, arch/arm64/include/uapi/asm/kvm.h).
const (
	kvmSetOneReg          = 0x4010aeac
	kvmARMVCPUInit        = 0x4020aeae
	kvmARMPreferredTarget = 0x8020aeaf

	// regPC is KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE, and the
	// place of regs.pc in struct kvm_regs, in words of 32 bits.
	regPC = 0x6030_0000_0010_0000 | 256/4

	// defaultIPABits is the size of guest-physical addresses that type 0 means.
	defaultIPABits = 40
)

// platformGuest returns the Arm guest. Its code, the reading of its exits and
// this file are written to the documented interface, and compiled; they have
// not yet run on an Arm machine.
func platformGuest() (program guest, written bool) { return arm64Guest(), true }

// vmType asks for smaller guest-physical addresses where the CPU has not the
// default size, which KVM_CREATE_VM would refuse there.
func vmType(kvm *os.File) uintptr {
	bits, err := ioctl(kvm, kvmCheckExtension, capARMVMIPASize)
	if err != nil || bits >= defaultIPABits {
		return 0 // a kernel that cannot tell knows the default only
	}
	return uintptr(bits)
}

func prepareVM(*os.File) (call string, err error) { return "", nil }

// vcpuInit is struct kvm_vcpu_init.
type vcpuInit struct {
	target   uint32
	features [7]uint32
}

// oneReg is struct kvm_one_reg.
type oneReg struct{ id, address uint64 }

// prepareVCPU makes the vCPU the kind that the host's CPU is, which starts at
// EL1 with the MMU off, and points it at the code.
func prepareVCPU(vm, vcpu *os.File, start uint64) (call string, err error) {
	var init vcpuInit
	if _, err := ioctlPtr(vm, kvmARMPreferredTarget, unsafe.Pointer(&init)); err != nil {
		return "KVM_ARM_PREFERRED_TARGET", err
	}
	if _, err := ioctlPtr(vcpu, kvmARMVCPUInit, unsafe.Pointer(&init)); err != nil {
		return "KVM_ARM_VCPU_INIT", err
	}
	var pinner runtime.Pinner // the kernel follows an address that Go cannot see
	defer pinner.Unpin()
	pinner.Pin(&start)
	register := oneReg{id: regPC, address: uint64(uintptr(unsafe.Pointer(&start)))}
	_, err = ioctlPtr(vcpu, kvmSetOneReg, unsafe.Pointer(&register))
	return "KVM_SET_ONE_REG", err
}
