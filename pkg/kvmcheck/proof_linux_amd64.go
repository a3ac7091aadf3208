package kvmcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// KVM's x86 calls and exits (Linux arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/kvm.h).
const (
	kvmSetTSSAddr = 0xae47
	kvmSetRegs    = 0x4090ae82
	kvmGetSregs   = 0x8138ae83
	kvmSetSregs   = 0x4138ae84

	exitIO            = 2
	exitHLT           = 5
	exitFailEntry     = 9
	exitInternalError = 17

	// Offsets into struct kvm_run.
	runImmediateExit = 1
	runExitReason    = 8
	runUnion         = 32

	// Three pages that no guest memory may use; real mode on older Intel CPUs needs them.
	tssAddr = 0xfffbd000

	guestStart  = 0x1000
	proofPort   = 0x3f8
	proofByte   = 'K'
	maxExits    = 64
	rflagsFixed = 0x2
)

// guestCode is real-mode code: mov dx,0x3f8; mov al,'K'; out dx,al; hlt.
const guestCode = "\xba\xf8\x03\xb0K\xee\xf4"

// memoryRegion is struct kvm_userspace_memory_region.
type memoryRegion struct {
	slot, flags      uint32
	guestPhys, size  uint64
	userspaceAddress uint64
}

// runGuest maps a page of code, creates a vCPU and runs it up to hlt.
func runGuest(ctx context.Context, kvm, vm *os.File, proof Proof) Proof {
	proof.Step = StepMapMemory
	page := os.Getpagesize()
	memory, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return proof.fail("mmap of guest memory", err)
	}
	defer unix.Munmap(memory) //nolint:errcheck // cannot fail on a mapping of ours
	copy(memory, guestCode)
	region := memoryRegion{guestPhys: guestStart, size: uint64(page), userspaceAddress: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := ioctl(vm, kvmSetTSSAddr, tssAddr); err != nil {
		return proof.fail("KVM_SET_TSS_ADDR", err)
	}
	_, err = ioctl(vm, kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&region)))
	runtime.KeepAlive(&region)
	if err != nil {
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
	if err := setRegisters(vcpu); err != nil {
		return proof.fail("set the vCPU's registers", err)
	}
	proof.Step = StepRun
	return runToHalt(ctx, vcpu, run, proof)
}

// setRegisters points the vCPU at the code: real mode, cs base 0.
func setRegisters(vcpu *os.File) error {
	var sregs [312]byte // struct kvm_sregs; cs comes first: base, limit, selector
	if _, err := ioctl(vcpu, kvmGetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(sregs[0:], 0)
	binary.LittleEndian.PutUint16(sregs[12:], 0)
	if _, err := ioctl(vcpu, kvmSetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	var regs [144]byte // struct kvm_regs: sixteen registers, rip, rflags
	binary.LittleEndian.PutUint64(regs[128:], guestStart)
	binary.LittleEndian.PutUint64(regs[136:], rflagsFixed)
	_, err := ioctl(vcpu, kvmSetRegs, uintptr(unsafe.Pointer(&regs)))
	return err
}

// runToHalt enters the guest until it halts, and believes it only when its
// byte came out of the port first.
func runToHalt(ctx context.Context, vcpu *os.File, run []byte, proof Proof) Proof {
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
			return proof.fail("KVM_RUN", fmt.Errorf("the guest did not halt within %v", proofDeadline))
		} else if err != nil {
			return proof.fail("KVM_RUN", err)
		}
		switch reason := binary.NativeEndian.Uint32(run[runExitReason:]); reason {
		case exitIO:
			sawByte = outputByte(run) == proofByte
		case exitHLT:
			if !sawByte {
				return proof.fail("KVM_RUN", errors.New("the guest halted without its output"))
			}
			proof.Step = StepDone
			return proof
		case exitFailEntry, exitInternalError:
			detail := binary.NativeEndian.Uint64(run[runUnion:])
			return proof.fail("KVM_RUN", fmt.Errorf("exit reason %d, detail %#x: the CPU refused the guest", reason, detail))
		default:
			return proof.fail("KVM_RUN", fmt.Errorf("unexpected exit reason %d", reason))
		}
	}
	return proof.fail("KVM_RUN", fmt.Errorf("no halt after %d exits", maxExits))
}

// outputByte returns the byte that an out instruction to our port wrote, else 0.
func outputByte(run []byte) byte {
	const directionOut = 1
	direction, size := run[runUnion], run[runUnion+1]
	port := binary.NativeEndian.Uint16(run[runUnion+2:])
	offset := binary.NativeEndian.Uint64(run[runUnion+8:])
	if direction != directionOut || size != 1 || port != proofPort || offset >= uint64(len(run)) {
		return 0
	}
	return run[offset]
}
