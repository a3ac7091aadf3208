package kvmcheck

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// healthySurvey is that of a KVM that offers all there is, on a small CPU.
func healthySurvey() Survey {
	all, _ := surveyCapabilities(func(number int) (int, error) {
		switch number {
		case 9: // NR_VCPUS
			return 4, nil
		case 66, 157, 192, 223: // MAX_VCPUS, NESTED_STATE, DIRTY_LOG_RING…
			return 4096, nil
		case 235: // VM_TYPES
			return 0b11, nil
		default:
			return 1, nil
		}
	})
	return Survey{
		Node:         Node{Path: kvmPath, State: NodeOpened},
		Capabilities: known("/dev/kvm", all),
		CPUID: known("/dev/kvm", []CPUID{
			{Leaf: 0x0, EAX: 0x10, EBX: 0x68747541, ECX: 0x444d4163, EDX: 0x69746e65},
			{Leaf: 0x1, EAX: 0x00800f12, EBX: 0x01020800, ECX: 1<<0 | 1<<21 | 1<<27, EDX: 1<<25 | 1<<26},
			{Leaf: 0x7, EAX: 2, EBX: 1<<5 | 1<<8},
			{Leaf: 0xd, EAX: 7, EBX: 832, ECX: 832},
			{Leaf: 0xd, Subleaf: 2, EAX: 256, EBX: 576},
			{Leaf: 0x80000007, EDX: 1 << 8},
			{Leaf: 0x80000008, EAX: 0x3030, ECX: 3},
		}),
		MSRs:   known("/dev/kvm", []MSR{{Index: 0x8b, Value: 0x1234}, {Index: 0xc0011029, Value: 2}}),
		TSCKHz: known("/dev/kvm", uint64(2_000_000)),
	}
}

// without returns the survey of a KVM that has not some capabilities.
func without(survey Survey, names ...string) Survey {
	survey.Capabilities.Value = slices.Clone(survey.Capabilities.Value)
	for i, capability := range survey.Capabilities.Value {
		if slices.Contains(names, capability.Name) {
			survey.Capabilities.Value[i].Value = 0
		}
	}
	return survey
}

func TestSurveyedCapabilitiesHaveTheKernelsNumbers(t *testing.T) {
	const header = "/usr/include/linux/kvm.h"
	text, err := os.ReadFile(header)
	if err != nil {
		t.Skipf("the kernel's headers are not installed: %v", err)
	}
	numbers := make(map[string]int)
	for _, match := range regexp.MustCompile(`(?m)^#define KVM_CAP_(\w+)\s+(\d+)`).FindAllStringSubmatch(string(text), -1) {
		numbers[match[1]], _ = strconv.Atoi(match[2]) // digits only
	}
	compared, last := 0, -1
	for _, capability := range surveyedCapabilities() {
		if number, found := numbers[capability.name]; found {
			compared++
			if number != capability.number {
				t.Errorf("%s is %d, in %s %d", capability.name, capability.number, header, number)
			}
		}
		if capability.number <= last || capability.asks == "" {
			t.Errorf("%s is out of order, twice, or not explained", capability.name)
		}
		last = capability.number
	}
	if compared < 50 {
		t.Errorf("compared %d capabilities: is %s the right file?", compared, header)
	}
}

func TestVMTypes(t *testing.T) {
	for bits, want := range map[int][]string{
		0: nil, 1: {"default"}, 0b10101: {"default", "SEV", "SEV-SNP"}, 1<<5 | 1<<9: {"TDX", "type 9"},
	} {
		if diff := cmp.Diff(want, vmTypes(bits)); diff != "" {
			t.Errorf("%b: %s", bits, diff)
		}
	}
}

func TestSurveyFindings(t *testing.T) {
	for name, test := range map[string]struct {
		survey  Survey
		check   string
		status  Status
		reason  Reason
		message string // a part of it
	}{
		"all that QEMU needs":          {healthySurvey(), "capabilities", Ready, "", "all 18"},
		"no irq routing":               {without(healthySurvey(), "IRQ_ROUTING"), "capabilities", NotReady, CapabilityMissing, "IRQ_ROUTING (routes"},
		"vCPUs":                        {healthySurvey(), "vcpus", Ready, "", "at most 4096 in a VM, with 1 memory slots; KVM recommends 4"},
		"a kernel that has no limit":   {without(healthySurvey(), "MAX_VCPUS", "NR_VCPUS"), "vcpus", Unknown, ReadFailed, "neither"},
		"no TLB flush for Windows":     {without(healthySurvey(), "HYPERV_TLBFLUSH"), "hyperv", NotReady, HyperVIncomplete, "lacks tlbflush"},
		"one kind of dirty ring":       {without(healthySurvey(), "DIRTY_LOG_RING"), "dirty-ring", Ready, "", "4 KiB"},
		"no dirty ring":                {without(healthySurvey(), "DIRTY_LOG_RING", "DIRTY_LOG_RING_ACQ_REL"), "dirty-ring", NotReady, DirtyRingMissing, "are 0"},
		"no PMU":                       {without(healthySurvey(), "PMU_CAPABILITY", "ARM_PMU_V3"), "pmu", NotReady, PMUMissing, "are 0"},
		"no TSC scaling":               {without(healthySurvey(), "TSC_CONTROL"), "tsc-scaling", NotReady, TSCScalingMissing, "2000.000 MHz"},
		"VM types":                     {healthySurvey(), "guest-memfd", Ready, "", "default, software-protected"},
		"no guest_memfd":               {without(healthySurvey(), "GUEST_MEMFD"), "guest-memfd", NotReady, GuestMemfdMissing, "is 0"},
		"a fingerprint":                {healthySurvey(), "fingerprint", Ready, "", "AuthenticAMD family 23 model 1"},
		"no device, no capability":     {unaskedSurvey(Node{Path: kvmPath, State: NodeAbsent}), "hyperv", NotReady, DeviceMissing, "does not exist"},
		"no device, no fingerprint":    {unaskedSurvey(Node{Path: kvmPath, State: NodeAbsent}), "fingerprint", NotReady, DeviceMissing, "does not exist"},
		"a device that is forbidden":   {unaskedSurvey(Node{Path: kvmPath, State: NodeRefused, Err: "/dev/kvm: permission denied"}), "pmu", Unknown, ReadFailed, "permission denied"},
		"nobody asked":                 {Survey{}, "fingerprint", Unknown, ReadFailed, "not asked"},
		"an old recording":             {must(parseAnswers([]byte(`{}`))).SurveyKVM(), "vcpus", Unknown, ReadFailed, "/dev/kvm: not part of this recording"},
		"no CPUID, but capabilities":   {Survey{Capabilities: healthySurvey().Capabilities}, "fingerprint", Unknown, ReadFailed, "not asked"},
		"capabilities without a VM":    {Survey{Capabilities: Reading[[]Capability]{Err: "KVM_CREATE_VM: busy"}}, "vcpus", Unknown, ReadFailed, "busy"},
		"an answer about other things": {Survey{Capabilities: known("/dev/kvm", []Capability{})}, "capabilities", Unknown, ReadFailed, "not asked for"},
	} {
		t.Run(name, func(t *testing.T) {
			facts := Facts{Host: HostFacts{Arch: "amd64"}, Survey: test.survey, Fingerprint: NewFingerprint(test.survey)}
			for _, finding := range evaluateSurvey(facts) {
				if finding.Check != test.check {
					continue
				}
				declares(t, finding)
				if finding.Status != test.status || finding.Reason != test.reason || !strings.Contains(finding.Message, test.message) {
					t.Errorf("got %s %s %q", finding.Status, finding.Reason, finding.Message)
				}
				return
			}
			t.Errorf("no finding kvm/%s", test.check)
		})
	}
}

func TestFingerprintOfAnotherArchitecture(t *testing.T) {
	facts := Facts{Host: HostFacts{Arch: "arm64"}, Survey: Survey{Capabilities: healthySurvey().Capabilities}}
	if finding := evaluateFingerprint(facts); finding.Status != Unknown || finding.Reason != FingerprintUndefined {
		t.Errorf("got %+v", finding)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func TestSurveySurvivesJSON(t *testing.T) {
	survey := healthySurvey()
	text, err := json.Marshal(survey)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"0x00000007 0x00: eax=0x00000002 ebx=0x00000120 ecx=0x00000000 edx=0x00000000"`; !bytes.Contains(text, []byte(want)) {
		t.Errorf("no %s in %s", want, text)
	}
	var back Survey
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(survey, back); diff != "" {
		t.Error(diff)
	}
	for _, in := range []string{`"x"`, `""`, `"0x1 0x0: eax=1"`, `"0x1ffffffff 0x00: eax=0x0 ebx=0x0 ecx=0x0 edx=0x0"`} {
		if err := json.Unmarshal([]byte(in), new(CPUID)); err == nil {
			t.Errorf("%s is taken for a CPUID leaf", in)
		}
	}
	if err := json.Unmarshal([]byte(`"0x8b"`), new(MSR)); err == nil {
		t.Error("half an MSR is taken for one")
	}
}

func cpuidBytes(count uint32, leaves ...CPUID) []byte {
	order := binary.NativeEndian
	data := order.AppendUint32(nil, count)
	data = order.AppendUint32(data, 0)
	for _, leaf := range leaves {
		for _, field := range []uint32{leaf.Leaf, leaf.Subleaf, 1, leaf.EAX, leaf.EBX, leaf.ECX, leaf.EDX, 0, 0, 0} {
			data = order.AppendUint32(data, field)
		}
	}
	return data
}

func TestParseCPUID(t *testing.T) {
	leaves := healthySurvey().CPUID.Value
	data := append(cpuidBytes(uint32(len(leaves)), leaves...), make([]byte, 400)...)
	got, err := parseCPUID(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leaves, got); diff != "" {
		t.Error(diff)
	}
	for name, in := range map[string][]byte{
		"nothing": nil, "half a header": data[:4], "no leaf": cpuidBytes(0), "a leaf that is not there": cpuidBytes(2, leaves[0]),
		"more than we gave room for": append(cpuidBytes(maxCPUID+1), make([]byte, 1<<16)...), "endless": cpuidBytes(1<<32 - 1),
	} {
		if got, err := parseCPUID(in); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func TestParseMSRList(t *testing.T) {
	order := binary.NativeEndian
	list := func(words ...uint32) (data []byte) {
		for _, word := range words {
			data = order.AppendUint32(data, word)
		}
		return data
	}
	got, err := parseMSRList(list(2, 0x10a, 0xc0011029, 0, 0))
	if diff := cmp.Diff([]uint32{0x10a, 0xc0011029}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for name, in := range map[string][]byte{"nothing": nil, "less than promised": list(2, 1), "endless": list(1<<32-1, 1)} {
		if got, err := parseMSRList(in); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func FuzzKernelStructures(f *testing.F) {
	f.Add(cpuidBytes(1, CPUID{Leaf: 7}))
	f.Add(statsFile(counter{"exits", 3}))
	f.Add([]byte(`"0x00000007 0x00: eax=0x00000002 ebx=0x00000120 ecx=0x00000000 edx=0x00000000"`))
	f.Add([]byte(`{"survey":{"capabilities":{"value":[{"name":"HYPERV","value":1}]},"cpuid":{"value":[]},"msrs":{"value":["0x0000010a: 0x0000000000000001"]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if devices, err := parseAnswers(data); err == nil {
			survey := devices.SurveyKVM()
			_ = evaluateSurvey(Facts{Survey: survey, Fingerprint: NewFingerprint(survey)})
		}
		if leaves, err := parseCPUID(data); err == nil {
			survey := healthySurvey()
			survey.CPUID.Value = leaves
			if print := NewFingerprint(survey); print.Known {
				c := Compare(print, NewFingerprint(healthySurvey()))
				back := Compare(NewFingerprint(healthySurvey()), print)
				if c.AToB.Status != back.BToA.Status || c.BToA.Status != back.AToB.Status {
					t.Error("the order of the hosts matters")
				}
			}
		}
		_, _ = parseMSRList(data)
		if stats, err := parseStats(data); err == nil && len(stats) > maxStats {
			t.Errorf("%d counters", len(stats))
		}
		for _, program := range []guest{amd64Guest(), arm64Guest()} {
			_, _ = program.judge(data)
		}
		var leaf CPUID
		if leaf.UnmarshalText(data) == nil {
			text, _ := leaf.MarshalText()
			var again CPUID
			if err := again.UnmarshalText(text); err != nil || again != leaf {
				t.Errorf("%q: %v, %v", text, again, err)
			}
		}
	})
}
