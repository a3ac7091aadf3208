package kvmcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// guest is the program of the proof: it writes a byte where only its
// hypervisor sees it, and then ends.
type guest struct {
	code  string
	start uint64 // guest-physical address of the first instruction
	// judge says what the guest did when KVM_RUN came back.
	judge func(run []byte) (deed, error)
}

// deed is what a guest did to leave KVM_RUN.
type deed int

const (
	deedNone   deed = iota
	deedOutput      // it wrote its byte
	deedEnd         // it ended
)

// proofByte is what the guest writes.
const proofByte = 'K'

// KVM's exit reasons and struct kvm_run, whose head is the same on amd64 and
// arm64 (Linux include/uapi/linux/kvm.h).
const (
	exitIO            = 2
	exitHLT           = 5
	exitMMIO          = 6
	exitFailEntry     = 9
	exitInternalError = 17

	runImmediateExit = 1
	runExitReason    = 8
	runUnion         = 32
	runSize          = runUnion + 256 // with the padding of the union
)

// amd64Guest is real-mode code that writes to the port of a serial line.
func amd64Guest() guest {
	const code = "\xba\xf8\x03" + // mov dx, 0x3f8
		"\xb0K" + // mov al, 'K'
		"\xee" + // out dx, al
		"\xf4" // hlt
	return guest{code: code, start: 0x1000, judge: judgeAMD64}
}

// judgeAMD64 knows the guest's deeds by KVM_EXIT_IO and KVM_EXIT_HLT.
func judgeAMD64(run []byte) (deed, error) {
	if len(run) < runSize {
		return deedNone, fmt.Errorf("struct kvm_run has %d bytes", len(run))
	}
	switch reason := binary.NativeEndian.Uint32(run[runExitReason:]); reason {
	case exitIO:
		const directionOut, port = 1, 0x3f8
		io := run[runUnion:]
		offset := binary.NativeEndian.Uint64(io[8:])
		if io[0] != directionOut || io[1] != 1 || binary.NativeEndian.Uint16(io[2:]) != port ||
			offset >= uint64(len(run)) || run[offset] != proofByte {
			return deedNone, errors.New("KVM_EXIT_IO without the guest's output")
		}
		return deedOutput, nil
	case exitHLT:
		return deedEnd, nil
	default:
		return deedNone, refusal(run, reason)
	}
}

// Where the Arm guest writes: memory that it does not have. They are below
// 4 GiB, so they exist with every size of guest-physical addresses.
const (
	armOutput = 0x1000_0000
	armEnd    = 0x1001_0000
)

// arm64Guest is A64 code that starts at EL1 with the MMU off. A wfi does not
// leave KVM, so the guest ends with a second write.
//
// It starts at 64 KiB, a multiple of every page size that Linux has on Arm.
func arm64Guest() guest {
	words := []uint32{
		0x52800960, // movz w0, #'K'
		0xd2a20001, // movz x1, #0x1000, lsl #16: armOutput
		0x39000020, // strb w0, [x1]
		0xd2a20021, // movz x1, #0x1001, lsl #16: armEnd
		0x39000020, // strb w0, [x1]
		0x14000000, // b .: never reached
	}
	var code []byte
	for _, word := range words {
		code = binary.LittleEndian.AppendUint32(code, word)
	}
	return guest{code: string(code), start: 0x10000, judge: judgeARM64}
}

// judgeARM64 knows the guest's deeds by KVM_EXIT_MMIO.
func judgeARM64(run []byte) (deed, error) {
	if len(run) < runSize {
		return deedNone, fmt.Errorf("struct kvm_run has %d bytes", len(run))
	}
	reason := binary.NativeEndian.Uint32(run[runExitReason:])
	if reason != exitMMIO {
		return deedNone, refusal(run, reason)
	}
	mmio := run[runUnion:] // phys_addr, data[8], len, is_write
	if mmio[8] != proofByte || binary.NativeEndian.Uint32(mmio[16:]) != 1 || mmio[20] != 1 {
		return deedNone, errors.New("KVM_EXIT_MMIO without the guest's output")
	}
	switch address := binary.NativeEndian.Uint64(mmio); address {
	case armOutput:
		return deedOutput, nil
	case armEnd:
		return deedEnd, nil
	default:
		return deedNone, fmt.Errorf("KVM_EXIT_MMIO at %#x, where the guest does not write", address)
	}
}

// refusal is the error of an exit that the guest did not ask for.
func refusal(run []byte, reason uint32) error {
	switch reason {
	case exitFailEntry, exitInternalError:
		return fmt.Errorf("exit reason %d, detail %#x: the CPU refused the guest", reason, binary.NativeEndian.Uint64(run[runUnion:]))
	default:
		return fmt.Errorf("unexpected exit reason %d", reason)
	}
}
