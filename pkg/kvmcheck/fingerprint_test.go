package kvmcheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFingerprint(t *testing.T) {
	got := NewFingerprint(healthySurvey())
	want := Fingerprint{
		Hash: got.Value.Hash, Vendor: "AuthenticAMD", Family: 23, Model: 1,
		Features: []string{
			"avx2", "bmi2",
			"hyperv", "hyperv-enlightened-vmcs", "hyperv-send-ipi", "hyperv-spin", "hyperv-synic", "hyperv-synic2",
			"hyperv-time", "hyperv-tlbflush", "hyperv-vapic", "hyperv-vp-index",
			"invtsc", "lfence-always-serializing", "pni", "sse", "sse2", "x2apic", "xcr0-avx", "xcr0-sse", "xcr0-x87",
		},
		Amounts:    map[string]uint64{"bytes of nested state": 4096, "linear address bits": 48, "physical address bits": 48},
		Layout:     map[string]uint64{"xsave component 2 flags": 0, "xsave component 2 offset": 576, "xsave component 2 size": 256},
		TSCScaling: true, TSCKHz: known("/dev/kvm", uint64(2_000_000)),
	}
	if diff := cmp.Diff(want, got.Value); diff != "" {
		t.Error(diff)
	}
	// A change of the hash makes every host of a cluster another one: raise
	// fingerprintVersion when it is meant.
	if want := "2e726b0d9c6a"; got.Value.Hash != want {
		t.Errorf("the hash is %s, was %s", got.Value.Hash, want)
	}
}

// TestFingerprintIsCanonical changes what differs from CPU to CPU of one host,
// and from boot to boot.
func TestFingerprintIsCanonical(t *testing.T) {
	want := NewFingerprint(healthySurvey()).Value.Hash
	edit := func(change func(leaf *CPUID)) Survey {
		survey := healthySurvey()
		for i := range survey.CPUID.Value {
			change(&survey.CPUID.Value[i])
		}
		return survey
	}
	on := func(number, subleaf uint32, change func(leaf *CPUID)) Survey {
		return edit(func(leaf *CPUID) {
			if leaf.Leaf == number && leaf.Subleaf == subleaf {
				change(leaf)
			}
		})
	}
	more := func(leaves ...CPUID) Survey {
		survey := healthySurvey()
		survey.CPUID.Value = append(leaves, survey.CPUID.Value...)
		return survey
	}
	reversed := healthySurvey()
	slices.Reverse(reversed.CPUID.Value)
	slower := healthySurvey()
	slower.TSCKHz = known("/dev/kvm", uint64(1))
	microcode := healthySurvey()
	microcode.MSRs.Value[0].Value++
	for name, survey := range map[string]Survey{
		"another order":       reversed,
		"another APIC number": on(1, 0, func(l *CPUID) { l.EBX ^= 0xff000000 }),
		"another stepping":    on(1, 0, func(l *CPUID) { l.EAX ^= 0x3 }),
		"OSXSAVE":             on(1, 0, func(l *CPUID) { l.ECX ^= 1 << 27 }),
		"OSPKE":               on(7, 0, func(l *CPUID) { l.ECX ^= 1 << 4 }),
		"XSAVE's size now":    on(0xd, 0, func(l *CPUID) { l.EBX ^= 0xffff }),
		"a count of CPUs":     on(0x80000008, 0, func(l *CPUID) { l.ECX ^= 0xff }),
		"topology":            more(CPUID{Leaf: 0xb, EAX: 1, EBX: 2, ECX: 0x100, EDX: 7}, CPUID{Leaf: 0x1f, EDX: 7}, CPUID{Leaf: 0x8000001e, EAX: 7}),
		"caches":              more(CPUID{Leaf: 2, EAX: 1}, CPUID{Leaf: 4, EAX: 0x121}, CPUID{Leaf: 0x80000006, ECX: 9}),
		"frequencies":         more(CPUID{Leaf: 0x15, EAX: 1, EBX: 2}, CPUID{Leaf: 0x16, EAX: 3000}),
		"a leaf of nothing":   more(CPUID{Leaf: 3}),
		"a leaf twice":        more(CPUID{Leaf: 0x80000007, EDX: 1 << 8}),
		"the TSC's frequency": slower,
		"the microcode":       microcode,
	} {
		if got := NewFingerprint(survey).Value.Hash; got != want {
			t.Errorf("%s makes another fingerprint", name)
		}
	}
	for name, survey := range map[string]Survey{
		"a feature":             on(7, 0, func(l *CPUID) { l.EBX ^= 1 << 16 }),
		"an unknown leaf":       more(CPUID{Leaf: 0x29, EAX: 1}),
		"a model":               on(1, 0, func(l *CPUID) { l.EAX ^= 0x10 }),
		"a physical bit":        on(0x80000008, 0, func(l *CPUID) { l.EAX ^= 1 }),
		"an enlightenment":      without(healthySurvey(), "HYPERV_TLBFLUSH"),
		"nested virtualization": without(healthySurvey(), "NESTED_STATE"),
	} {
		if got := NewFingerprint(survey).Value.Hash; got == want || got == "" {
			t.Errorf("%s does not show: %q", name, got)
		}
	}
}

func TestNoFingerprintOfHalfASurvey(t *testing.T) {
	for name, spoil := range map[string]func(*Survey){
		"no CPUID":        func(s *Survey) { s.CPUID = Reading[[]CPUID]{Err: "why"} },
		"no MSRs":         func(s *Survey) { s.MSRs = Reading[[]MSR]{Err: "why"} },
		"no capabilities": func(s *Survey) { s.Capabilities = Reading[[]Capability]{Err: "why"} },
		"no vendor":       func(s *Survey) { s.CPUID.Value = s.CPUID.Value[1:] },
		"no family":       func(s *Survey) { s.CPUID.Value = s.CPUID.Value[:1] },
	} {
		survey := healthySurvey()
		spoil(&survey)
		if print := NewFingerprint(survey); print.Known || print.Err == "" || print.Value.Hash != "" {
			t.Errorf("%s: got %+v", name, print)
		}
	}
}

func TestFamilyAndModel(t *testing.T) {
	for eax, want := range map[uint32][2]uint32{
		0x00800f12: {23, 1},  // Naples
		0x00a10f11: {25, 17}, // Genoa
		0x000806f8: {6, 143}, // Sapphire Rapids
		0x00000543: {5, 4},   // Pentium MMX
	} {
		if family, model := familyAndModel(eax); family != want[0] || model != want[1] {
			t.Errorf("%#x: family %d model %d, want %v", eax, family, model, want)
		}
	}
}

func TestCompare(t *testing.T) {
	base := func() Fingerprint { return NewFingerprint(healthySurvey()).Value }
	lacking := func(f Fingerprint, features ...string) Fingerprint {
		f.Features = slices.DeleteFunc(slices.Clone(f.Features), func(have string) bool { return slices.Contains(features, have) })
		return f
	}
	change := func(f Fingerprint, how func(*Fingerprint)) Fingerprint {
		how(&f)
		return f
	}
	is := func(f Fingerprint) Reading[Fingerprint] { return known("/dev/kvm", f) }
	unscaled := change(base(), func(f *Fingerprint) { f.TSCScaling = false })
	tsc := func(f Fingerprint, khz uint64) Fingerprint {
		return change(f, func(f *Fingerprint) { f.TSCKHz = known("/dev/kvm", khz) })
	}
	yes, no, open := Migration{Status: Ready}, func(why ...string) Migration { return Migration{NotReady, why} }, func(why ...string) Migration { return Migration{Unknown, why} }
	for name, test := range map[string]struct {
		a, b        Reading[Fingerprint]
		aToB, bToA  Migration
		differences []Difference
		verdict     Status
	}{
		"the same": {is(base()), is(base()), yes, yes, nil, Ready},
		"B lacks features": {
			is(base()), is(lacking(base(), "avx2", "bmi2")), no("avx2", "bmi2"), yes,
			[]Difference{{"avx2", "yes", "no"}, {"bmi2", "yes", "no"}},
			NotReady,
		},
		"each has its own": {
			is(lacking(base(), "sse2")), is(lacking(base(), "avx2")), no("avx2"), no("sse2"),
			[]Difference{{"avx2", "yes", "no"}, {"sse2", "no", "yes"}},
			NotReady,
		},
		"another vendor": {
			is(base()), is(change(base(), func(f *Fingerprint) { f.Vendor = "GenuineIntel" })), no("another vendor"), no("another vendor"),
			[]Difference{{"vendor", "AuthenticAMD", "GenuineIntel"}},
			NotReady,
		},
		"another model stops nobody": {
			is(base()), is(change(base(), func(f *Fingerprint) { f.Model = 49 })), yes, yes,
			[]Difference{{"family and model", "23/1", "23/49"}},
			Ready,
		},
		"fewer physical bits": {
			is(base()), is(change(base(), func(f *Fingerprint) {
				f.Amounts = map[string]uint64{"bytes of nested state": 4096, "linear address bits": 48, "physical address bits": 40}
			})),
			no("physical address bits"), yes,
			[]Difference{{"physical address bits", "48", "40"}},
			NotReady,
		},
		"a number that A does not have": {
			is(change(base(), func(f *Fingerprint) { f.Amounts = nil })), is(change(base(), func(f *Fingerprint) { f.Amounts = map[string]uint64{"performance counters": 6} })),
			yes, no("performance counters"),
			[]Difference{{"performance counters", "0", "6"}},
			NotReady,
		},
		"XSAVE lies elsewhere": {
			is(base()), is(change(base(), func(f *Fingerprint) { f.Layout = map[string]uint64{"xsave component 2 offset": 640} })),
			no("xsave component 2 offset"), no("xsave component 2 offset"),
			[]Difference{{"xsave component 2 offset", "576", "640"}},
			NotReady,
		},
		"a layout that one side does not have": {
			is(base()), is(change(base(), func(f *Fingerprint) { f.Layout = nil })), yes, yes, nil, Ready,
		},
		"frequencies that differ by 250 ppm": {is(unscaled), is(tsc(unscaled, 2_000_500)), yes, yes, nil, Ready},
		"frequencies that differ by more": {
			is(unscaled), is(tsc(unscaled, 2_000_501)), no("TSC frequency in kHz"), no("TSC frequency in kHz"),
			[]Difference{{"TSC frequency in kHz", "2000000", "2000501"}},
			NotReady,
		},
		"only B scales": {
			is(unscaled), is(tsc(base(), 3_000_000)), yes, no("TSC frequency in kHz"),
			[]Difference{{"TSC scaling", "no", "yes"}, {"TSC frequency in kHz", "2000000", "3000000"}},
			NotReady,
		},
		"no guest was promised a constant TSC": {
			is(lacking(unscaled, "invtsc")), is(tsc(lacking(unscaled, "invtsc"), 3_000_000)), yes, yes,
			[]Difference{{"TSC frequency in kHz", "2000000", "3000000"}},
			Ready,
		},
		"B's frequency is not known": {
			is(unscaled), is(change(unscaled, func(f *Fingerprint) { f.TSCKHz = Reading[uint64]{} })),
			open("TSC frequency in kHz is not known"), open("TSC frequency in kHz is not known"), nil, Unknown,
		},
		"B's frequency is not known, and it lacks a feature": {
			is(unscaled), is(change(lacking(unscaled, "sse2"), func(f *Fingerprint) { f.TSCKHz = Reading[uint64]{} })),
			no("sse2"), open("TSC frequency in kHz is not known"),
			[]Difference{{"sse2", "yes", "no"}},
			NotReady,
		},
		"B has no fingerprint": {
			is(base()),
			Reading[Fingerprint]{Err: "/dev/kvm does not exist"},
			open("B has no fingerprint: /dev/kvm does not exist"), open("B has no fingerprint: /dev/kvm does not exist"), nil, Unknown,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Compare(test.a, test.b)
			if test.differences == nil {
				test.differences = []Difference{}
			}
			want := Comparison{A: test.a, B: test.b, AToB: test.aToB, BToA: test.bToA, Differences: test.differences}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if got.Verdict() != test.verdict {
				t.Errorf("verdict %s, want %s", got.Verdict(), test.verdict)
			}
			back := Compare(test.b, test.a)
			if back.AToB.Status != got.BToA.Status || back.BToA.Status != got.AToB.Status {
				t.Errorf("the other way round it is %+v", back)
			}
		})
	}
}

func TestComparisonReadsWell(t *testing.T) {
	a := NewFingerprint(healthySurvey())
	smaller := without(healthySurvey(), "HYPERV_TLBFLUSH")
	smaller.CPUID.Value[2].EBX = 0
	b := NewFingerprint(smaller)
	var out strings.Builder
	if err := Compare(a, b).Write(&out, "this host", "rack\x1b7.json"); err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("HASHA", a.Value.Hash, "HASHB", b.Value.Hash).Replace(`SAFE to migrate VMs from B to A only

A  this host    HASHA  AuthenticAMD family 23 model 1, 21 features
B  rack?7.json  HASHB  AuthenticAMD family 23 model 1, 18 features

A to B: UNSAFE, B lacks or differs in: avx2, bmi2, hyperv-tlbflush
B to A: safe

DIFFERENCE       A             B
avx2             yes           no
bmi2             yes           no
hyperv-tlbflush  yes           no
`)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	for _, test := range []struct {
		c    Comparison
		want string
	}{
		{Compare(a, a), "SAME for VMs: safe to migrate in both directions\n"},
		{Compare(b, a), "SAFE to migrate VMs from A to B only\n"},
		{Compare(a, Reading[Fingerprint]{Err: "gone"}), "UNDECIDED whether VMs can migrate\n"},
	} {
		out.Reset()
		if err := test.c.Write(&out, "a", "b"); err != nil || !strings.HasPrefix(out.String(), test.want) {
			t.Errorf("want %q, have %q, %v", test.want, &out, err)
		}
	}
}

func TestEveryMaskHasItsReason(t *testing.T) {
	seen := make(map[string]bool)
	for _, masked := range maskedRegisters() {
		key := fmt.Sprintf("%#x.%d %#x %#x %#x %#x", masked.leaf, masked.subleaf, masked.eax, masked.ebx, masked.ecx, masked.edx)
		if masked.why == "" || masked.eax|masked.ebx|masked.ecx|masked.edx == 0 || seen[key] {
			t.Errorf("%s: no reason, no bits, or twice", key)
		}
		seen[key] = true
	}
}

func TestUnknownFeaturesAreNamedByTheirPlace(t *testing.T) {
	for want, got := range map[string]string{
		"leaf 7.0 ecx bit 0": cpuidFeatureName(7, 0, "ecx", 0),
		"leaf 29 eax bit 3":  cpuidFeatureName(0x29, 0, "eax", 3),
		"avx2":               cpuidFeatureName(7, 0, "ebx", 5),
		"kvm-steal-time":     cpuidFeatureName(0x40000001, 0, "eax", 5),
		"its-no":             msrFeatureName(0x10a, 62),
		"msr 48b bit 33":     msrFeatureName(0x48b, 33),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
