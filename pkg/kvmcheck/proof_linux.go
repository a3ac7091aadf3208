package kvmcheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The stable KVM API (Linux Documentation/virt/kvm/api.rst).
const (
	kvmAPIVersion          = 12
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmCheckExtension      = 0xae03
	kvmGetVCPUMmapSize     = 0xae04
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80
)

const (
	// proofDeadline bounds the proof: a working host needs a few milliseconds.
	proofDeadline = time.Second
	// maxExits bounds a guest that comes back and does not end: ours needs two.
	maxExits = 64
)

// ProveKVM opens /dev/kvm, checks the API version, creates a VM and a vCPU,
// maps a page, runs a few instructions to their end, reads what KVM counted,
// and tears it all down.
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
	vm, err := createVM(file)
	if err != nil {
		return proof.fail("KVM_CREATE_VM", err)
	}
	defer vm.Close() //nolint:errcheck // the VM ends with its descriptor
	proof.Step = StepMapMemory
	program, written := platformGuest()
	if !written {
		proof.Step = StepRun
		proof.Err = "no guest code for " + runtime.GOARCH + ": KVM created a VM, but no guest was run"
		return proof
	}
	return runGuest(ctx, file, vm, program, proof)
}

func createVM(kvm *os.File) (*os.File, error) {
	fd, err := ioctl(kvm, kvmCreateVM, vmType(kvm))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "kvm-vm"), nil
}

// memoryRegion is struct kvm_userspace_memory_region.
type memoryRegion struct {
	slot, flags      uint32
	guestPhys, size  uint64
	userspaceAddress uint64
}

// runGuest maps a page of code, creates a vCPU and runs it to the guest's end.
func runGuest(ctx context.Context, kvm, vm *os.File, program guest, proof Proof) Proof {
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return proof.fail("mmap of guest memory", err)
	}
	defer unix.Munmap(memory) //nolint:errcheck // cannot fail on a mapping of ours
	copy(memory, program.code)
	if call, err := prepareVM(vm); err != nil {
		return proof.fail(call, err)
	}
	region := memoryRegion{guestPhys: program.start, size: uint64(page), userspaceAddress: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := ioctlPtr(vm, kvmSetUserMemoryRegion, unsafe.Pointer(&region)); err != nil {
		return proof.fail("KVM_SET_USER_MEMORY_REGION", err)
	}

	proof.Step = StepCreateVCPU
	fd, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return proof.fail("KVM_CREATE_VCPU", err)
	}
	vcpu := os.NewFile(uintptr(fd), "kvm-vcpu")
	defer vcpu.Close() //nolint:errcheck // the vCPU ends with its descriptor
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return proof.fail("KVM_GET_VCPU_MMAP_SIZE", err)
	}
	run, err := unix.Mmap(int(vcpu.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return proof.fail("mmap of struct kvm_run", err)
	}
	defer unix.Munmap(run) //nolint:errcheck // cannot fail on a mapping of ours
	if call, err := prepareVCPU(vm, vcpu, program.start); err != nil {
		return proof.fail(call, err)
	}

	proof.Step = StepRun
	proof = runToEnd(ctx, vcpu, run, program, proof)
	if proof.Step == StepDone {
		proof.VCPUStats, proof.VMStats = readStats(vcpu), readStats(vm)
	}
	return proof
}

// runToEnd enters the guest until it ends, and believes it only when its byte
// came out first.
func runToEnd(ctx context.Context, vcpu *os.File, run []byte, program guest, proof Proof) Proof {
	// The deadline reaches a guest that does not come back by a signal to its
	// thread; immediate_exit closes the gap before KVM_RUN.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := unix.Getpid(), unix.Gettid()
	var left atomic.Bool
	kicked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(kicked)
		run[runImmediateExit] = 1
		for !left.Load() {
			_ = unix.Tgkill(pid, tid, unix.SIGURG)
			runtime.Gosched()
		}
	})
	defer func() {
		left.Store(true)
		if !stop() {
			<-kicked // it writes to run, which is about to be unmapped
		}
	}()
	sawByte := false
	for proof.Exits = 1; proof.Exits <= maxExits; proof.Exits++ {
		if _, err := ioctl(vcpu, kvmRun, 0); errors.Is(err, unix.EINTR) && ctx.Err() == nil {
			continue
		} else if ctx.Err() != nil {
			proof.TimedOut = true
			return proof.fail("KVM_RUN", fmt.Errorf("the guest did not end within %v", proofDeadline))
		} else if err != nil {
			return proof.fail("KVM_RUN", err)
		}
		did, err := program.judge(run)
		switch {
		case err != nil:
			return proof.fail("KVM_RUN", err)
		case did == deedOutput:
			sawByte = true
		case !sawByte:
			return proof.fail("KVM_RUN", errors.New("the guest ended without its output"))
		default:
			proof.Step = StepDone
			return proof
		}
	}
	return proof.fail("KVM_RUN", fmt.Errorf("no end after %d exits", maxExits))
}

// fail ends the proof at the step it is in.
func (p Proof) fail(call string, err error) Proof {
	p.Errno = errnoName(err)
	p.Err = call + ": " + errText(err)
	return p
}

// ioctl returns the call's result; a signal that cut it short is not an error of KVM's.
func ioctl(file *os.File, request, arg uintptr) (int, error) {
	return again(request, func() (uintptr, unix.Errno) {
		result, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, arg)
		return result, errno
	})
}

// ioctlPtr is ioctl for a call that takes the address of a structure.
func ioctlPtr(file *os.File, request uintptr, arg unsafe.Pointer) (int, error) {
	return again(request, func() (uintptr, unix.Errno) {
		result, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(arg))
		return result, errno
	})
}

func again(request uintptr, call func() (uintptr, unix.Errno)) (int, error) {
	for {
		result, errno := call()
		if errno == unix.EINTR && request != kvmRun {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(result), nil
	}
}
