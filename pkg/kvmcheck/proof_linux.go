package kvmcheck

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The stable KVM API (Linux Documentation/virt/kvm/api.rst).
const (
	kvmAPIVersion          = 12
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmGetVCPUMmapSize     = 0xae04
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80
)

// proofDeadline bounds the proof: a working host needs a few milliseconds.
const proofDeadline = time.Second

// ProveKVM opens /dev/kvm, checks the API version, creates a VM and a vCPU,
// maps a page, runs a few instructions up to hlt, and tears it all down.
func (d hostDevices) ProveKVM(ctx context.Context) Proof {
	ctx, cancel := context.WithTimeout(ctx, proofDeadline)
	defer cancel()
	file, node := d.open(kvmPath)
	proof := Proof{Node: node, Step: StepOpen, Errno: node.Errno, Err: node.Err}
	if file == nil {
		return proof
	}
	defer file.Close() //nolint:errcheck // nothing was written
	proof.Step = StepAPIVersion
	version, err := ioctl(file, kvmGetAPIVersion, 0)
	if err != nil {
		return proof.fail("KVM_GET_API_VERSION", err)
	}
	proof.APIVersion = version
	if version != kvmAPIVersion {
		proof.Err = fmt.Sprintf("KVM_GET_API_VERSION: version %d, want %d", version, kvmAPIVersion)
		return proof
	}
	proof.Step = StepCreateVM
	fd, err := ioctl(file, kvmCreateVM, 0)
	if err != nil {
		return proof.fail("KVM_CREATE_VM", err)
	}
	vm := os.NewFile(uintptr(fd), "kvm-vm")
	defer vm.Close() //nolint:errcheck // the VM ends with its descriptor
	return runGuest(ctx, file, vm, proof)
}

// fail ends the proof at the step it is in.
func (p Proof) fail(call string, err error) Proof {
	p.Errno = errnoName(err)
	p.Err = call + ": " + errText(err)
	return p
}

// ioctl returns the call's result; a signal that cut it short is not an error of KVM's.
func ioctl(file *os.File, request, arg uintptr) (int, error) {
	for {
		result, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, arg)
		if errno == unix.EINTR && request != kvmRun {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(result), nil
	}
}
