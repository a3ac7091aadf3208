package kvmcheck

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type counter struct {
	name  string
	value uint64
}

// statsFile is what KVM_GET_STATS_FD gives: here the data comes before the
// descriptors, which the format allows.
func statsFile(counters ...counter) []byte {
	const nameSize, idSize = 48, 48
	order := binary.NativeEndian
	count := uint32(len(counters))
	data := uint32(24 + idSize)
	descriptors := data + 8*count
	var file []byte
	for _, word := range []uint32{0, nameSize, count, 24, descriptors, data} {
		file = order.AppendUint32(file, word)
	}
	file = append(file, make([]byte, idSize)...)
	for _, counter := range counters {
		file = order.AppendUint64(file, counter.value)
	}
	for i, counter := range counters {
		file = order.AppendUint32(file, 0)
		file = order.AppendUint16(file, 0)
		file = order.AppendUint16(file, 1) // values
		file = order.AppendUint32(file, uint32(8*i))
		file = order.AppendUint32(file, 0)
		name := make([]byte, nameSize)
		copy(name, counter.name)
		file = append(file, name...)
	}
	return file
}

func TestParseStats(t *testing.T) {
	good := statsFile(counter{"exits", 3}, counter{"halt_exits", 1}, counter{"nmi_window_exits", 0})
	got, err := parseStats(good)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{"exits": 3, "halt_exits": 1}, got); diff != "" {
		t.Error(diff)
	}
	const firstDescriptor = 24 + 48 + 3*8
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                      func([]byte) []byte { return nil },
		"half a header":                func(f []byte) []byte { return f[:20] },
		"cut off":                      func(f []byte) []byte { return f[:len(f)-1] },
		"names without length":         func(f []byte) []byte { clear(f[4:8]); return f },
		"names too long":               func(f []byte) []byte { f[5] = 0xff; f[7] = 0xff; return f },
		"too many counters":            func(f []byte) []byte { f[10] = 0xff; return f },
		"descriptors outside":          func(f []byte) []byte { f[19] = 0xff; return f },
		"data outside":                 func(f []byte) []byte { f[23] = 0xff; return f },
		"a value outside":              func(f []byte) []byte { f[firstDescriptor+11] = 0xff; return f },
		"a name that does not end":     func(f []byte) []byte { copy(f[firstDescriptor+16:], strings.Repeat("x", 48)); return f },
		"a counter that has no name":   func(f []byte) []byte { f[firstDescriptor+16] = 0; return f },
		"a histogram that is too long": func(f []byte) []byte { f[firstDescriptor+7] = 0xff; return f },
	} {
		if got, err := parseStats(spoil(append([]byte{}, good...))); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
	histogram := append([]byte{}, good...)
	histogram[firstDescriptor+6] = 2 // values of the first counter
	if got, err := parseStats(histogram); err != nil || got["exits"] != 0 || got["halt_exits"] != 1 {
		t.Errorf("a histogram among counters: %v, %v", got, err)
	}
}

// kvmRunPage is struct kvm_run with an exit.
func kvmRunPage(reason uint32, union func(run, union []byte)) []byte {
	run := make([]byte, 4096)
	binary.NativeEndian.PutUint32(run[runExitReason:], reason)
	union(run, run[runUnion:])
	return run
}

func TestGuestsAreJudgedByTheirExits(t *testing.T) {
	order := binary.NativeEndian
	port := func(direction, size byte, port uint16, offset uint64, value byte) []byte {
		return kvmRunPage(exitIO, func(run, io []byte) {
			io[0], io[1] = direction, size
			order.PutUint16(io[2:], port)
			order.PutUint64(io[8:], offset)
			if offset < uint64(len(run)) {
				run[offset] = value
			}
		})
	}
	mmio := func(address uint64, value byte, size uint32, isWrite byte) []byte {
		return kvmRunPage(exitMMIO, func(_, mmio []byte) {
			order.PutUint64(mmio, address)
			mmio[8], mmio[20] = value, isWrite
			order.PutUint32(mmio[16:], size)
		})
	}
	empty := func(_, _ []byte) {}
	for name, test := range map[string]struct {
		judge func([]byte) (deed, error)
		run   []byte
		want  deed
		err   string
	}{
		"amd64: the byte":             {judgeAMD64, port(1, 1, 0x3f8, 2048, 'K'), deedOutput, ""},
		"amd64: another byte":         {judgeAMD64, port(1, 1, 0x3f8, 2048, 'L'), deedNone, "without the guest's output"},
		"amd64: another port":         {judgeAMD64, port(1, 1, 0x3f9, 2048, 'K'), deedNone, "without the guest's output"},
		"amd64: input":                {judgeAMD64, port(0, 1, 0x3f8, 2048, 'K'), deedNone, "without the guest's output"},
		"amd64: data outside the run": {judgeAMD64, port(1, 1, 0x3f8, 1<<40, 'K'), deedNone, "without the guest's output"},
		"amd64: hlt":                  {judgeAMD64, kvmRunPage(exitHLT, empty), deedEnd, ""},
		"amd64: the CPU refuses": {
			judgeAMD64, kvmRunPage(exitFailEntry, func(_, u []byte) { order.PutUint64(u, 0x80000021) }),
			deedNone, "exit reason 9, detail 0x80000021: the CPU refused the guest",
		},
		"amd64: a shutdown":       {judgeAMD64, kvmRunPage(8, empty), deedNone, "unexpected exit reason 8"},
		"amd64: too short a page": {judgeAMD64, make([]byte, 40), deedNone, "has 40 bytes"},
		"arm64: the byte":         {judgeARM64, mmio(0x10000000, 'K', 1, 1), deedOutput, ""},
		"arm64: the end":          {judgeARM64, mmio(0x10010000, 'K', 1, 1), deedEnd, ""},
		"arm64: another place":    {judgeARM64, mmio(0x20000000, 'K', 1, 1), deedNone, "at 0x20000000"},
		"arm64: another byte":     {judgeARM64, mmio(0x10000000, 'L', 1, 1), deedNone, "without the guest's output"},
		"arm64: a word":           {judgeARM64, mmio(0x10000000, 'K', 4, 1), deedNone, "without the guest's output"},
		"arm64: a read":           {judgeARM64, mmio(0x10000000, 'K', 1, 0), deedNone, "without the guest's output"},
		"arm64: hlt":              {judgeARM64, kvmRunPage(exitHLT, empty), deedNone, "unexpected exit reason 5"},
		"arm64: no page":          {judgeARM64, nil, deedNone, "has 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.judge(test.run)
			if got != test.want || (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

// TestArmGuestIsWhatItsCommentsSay encodes the instructions from the fields
// that the Arm Architecture Reference Manual (DDI 0487, C6.2) gives them.
func TestArmGuestIsWhatItsCommentsSay(t *testing.T) {
	const sf64 = 1 << 31
	movz := func(width, rd, imm16, shift uint32) uint32 { // sf 10 100101 hw imm16 Rd
		return width | 0b10<<29 | 0b100101<<23 | shift/16<<21 | imm16<<5 | rd
	}
	strb := func(rt, rn, imm12 uint32) uint32 { // 00 111 0 01 00 imm12 Rn Rt
		return 0b00<<30 | 0b111<<27 | 0b01<<24 | imm12<<10 | rn<<5 | rt
	}
	b := func(imm26 uint32) uint32 { return 0b000101<<26 | imm26 } // 000101 imm26
	want := []uint32{
		movz(0, 0, proofByte, 0),
		movz(sf64, 1, armOutput>>16, 16), strb(0, 1, 0),
		movz(sf64, 1, armEnd>>16, 16), strb(0, 1, 0),
		b(0),
	}
	if armOutput&0xffff != 0 || armEnd&0xffff != 0 {
		t.Error("one movz cannot make these addresses")
	}
	code := []byte(arm64Guest().code)
	var got []uint32
	for ; len(code) >= 4; code = code[4:] {
		got = append(got, binary.LittleEndian.Uint32(code))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	const largestPage = 64 << 10
	if arm64Guest().start%largestPage != 0 {
		t.Error("the guest's memory would not begin on a page")
	}
}

func TestEachFailureOfTheProofHasItsReason(t *testing.T) {
	for name, test := range map[string]struct {
		proof  Proof
		status Status
		reason Reason
	}{
		"the node is another driver's":       {Proof{Step: StepAPIVersion, Errno: "ENOTTY"}, NotReady, DeviceUnusable},
		"another version":                    {Proof{Step: StepAPIVersion, APIVersion: 11}, NotReady, APIVersionMismatch},
		"another hypervisor has SVM or VMX":  {Proof{Step: StepCreateVM, Errno: "EBUSY"}, NotReady, VirtualizationInUse},
		"the same, since Linux 6.12":         {Proof{Step: StepCreateVM, Errno: "EIO"}, NotReady, VirtualizationInUse},
		"VMXON faults":                       {Proof{Step: StepCreateVM, Errno: "EFAULT"}, NotReady, DeviceUnusable},
		"virtualization is off in firmware":  {Proof{Step: StepCreateVM, Errno: "ENOTSUP"}, NotReady, DeviceUnusable},
		"no memory for a VM":                 {Proof{Step: StepCreateVM, Errno: "ENOMEM"}, NotReady, OutOfMemory},
		"no descriptor for a VM":             {Proof{Step: StepCreateVM, Errno: "EMFILE"}, Unknown, DescriptorsExhausted},
		"the host has no descriptors":        {Proof{Step: StepCreateVCPU, Errno: "ENFILE"}, Unknown, DescriptorsExhausted},
		"a policy forbids VMs":               {Proof{Step: StepCreateVM, Errno: "EPERM"}, NotReady, PermissionDenied},
		"a policy forbids vCPUs":             {Proof{Step: StepCreateVCPU, Errno: "EACCES"}, NotReady, PermissionDenied},
		"no memory for the guest":            {Proof{Step: StepMapMemory, Errno: "ENOMEM"}, NotReady, OutOfMemory},
		"KVM does not like our memory":       {Proof{Step: StepMapMemory, Errno: "EINVAL"}, Unknown, ReadFailed},
		"a policy forbids to run":            {Proof{Step: StepRun, Exits: 1, Errno: "EPERM"}, NotReady, PermissionDenied},
		"KVM gives the VM up":                {Proof{Step: StepRun, Exits: 1, Errno: "EIO"}, NotReady, GuestFailed},
		"the guest does something else":      {Proof{Step: StepRun, Exits: 1}, NotReady, GuestFailed},
		"the guest does not come back":       {Proof{Step: StepRun, Exits: 1, TimedOut: true}, Unknown, GuestTimeout},
		"an architecture without guest code": {Proof{Step: StepRun}, Unknown, ProofNotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			test.proof.Node = Node{Path: kvmPath, State: NodeOpened}
			test.proof.Err = "the cause"
			finding := evaluateProof(Facts{KVM: KVMFacts{Proof: test.proof}})
			declares(t, finding)
			if finding.Status != test.status || finding.Reason != test.reason {
				t.Errorf("got %s %s", finding.Status, finding.Reason)
			}
			if !strings.Contains(finding.Message, "/dev/kvm: step "+string(test.proof.Step)+": the cause") {
				t.Errorf("the message is %q", finding.Message)
			}
			if finding.Status == NotReady && finding.Remedy == "" {
				t.Error("no remedy")
			}
		})
	}
}
