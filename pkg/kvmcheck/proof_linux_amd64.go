package kvmcheck

import (
	"encoding/binary"
	"os"
	"unsafe"
)

// KVM's x86 calls (Linux arch/x86/include/uapi/asm/kvm.h).
const (
	kvmSetTSSAddr = 0xae47
	kvmSetRegs    = 0x4090ae82
	kvmGetSregs   = 0x8138ae83
	kvmSetSregs   = 0x4138ae84
)

func platformGuest() (program guest, written bool) { return amd64Guest(), true }

// vmType is KVM_X86_DEFAULT_VM.
func vmType(*os.File) uintptr { return 0 }

// prepareVM sets three pages aside that no guest memory may use: real mode on
// older Intel CPUs needs them.
func prepareVM(vm *os.File) (call string, err error) {
	const tssAddr = 0xfffbd000
	_, err = ioctl(vm, kvmSetTSSAddr, tssAddr)
	return "KVM_SET_TSS_ADDR", err
}

// prepareVCPU points the vCPU at the code: real mode, cs base 0.
func prepareVCPU(_, vcpu *os.File, start uint64) (call string, err error) {
	const rflagsFixed = 0x2
	var sregs [312]byte // struct kvm_sregs; cs comes first: base, limit, selector
	if _, err := ioctlPtr(vcpu, kvmGetSregs, unsafe.Pointer(&sregs)); err != nil {
		return "KVM_GET_SREGS", err
	}
	binary.LittleEndian.PutUint64(sregs[0:], 0)
	binary.LittleEndian.PutUint16(sregs[12:], 0)
	if _, err := ioctlPtr(vcpu, kvmSetSregs, unsafe.Pointer(&sregs)); err != nil {
		return "KVM_SET_SREGS", err
	}
	var regs [144]byte // struct kvm_regs: sixteen registers, rip, rflags
	binary.LittleEndian.PutUint64(regs[128:], start)
	binary.LittleEndian.PutUint64(regs[136:], rflagsFixed)
	_, err = ioctlPtr(vcpu, kvmSetRegs, unsafe.Pointer(&regs))
	return "KVM_SET_REGS", err
}
