package kvmcheck

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func healthyConfidential() ConfidentialFacts {
	return ConfidentialFacts{
		Parameters: map[string]Reading[bool]{paramTDX: known(parameterPath(paramTDX), true)},
		SEVDevice:  known(sevDevice, false),
		SEV:        known("/proc/cpuinfo", SEVCapability{}),
		Pools:      known("/misc", map[string]Pool{"tdx": {Capacity: 31, Used: 1}}),
	}
}

// epyc makes the healthy host an AMD one with SEV, SEV-ES and SEV-SNP on.
func epyc(changes ...func(*Facts)) func(*Facts) {
	return func(f *Facts) {
		f.CPU.Info.Value.Vendor, f.CPU.Info.Value.Extension, f.CPU.Info.Value.Flags = "AuthenticAMD", "svm", nil
		f.KVM.Modules.Value = []string{"kvm", "kvm_amd"}
		f.Confidential = ConfidentialFacts{
			Parameters: map[string]Reading[bool]{
				paramSEV: known("/sev", true), paramSEVES: known("/sev_es", true), paramSEVSNP: known("/sev_snp", true),
			},
			SEVDevice: known(sevDevice, true),
			SEV:       known("/cpuid", SEVCapability{SEV: true, SEVES: true, SEVSNP: true, ASIDs: 509, FirstASID: 100}),
			Pools:     known("/misc", map[string]Pool{"sev": {Capacity: 410, Used: 3}, "sev_es": {Capacity: 99, Used: 99}}),
		}
		for _, change := range changes {
			change(f)
		}
	}
}

func TestConfidentialHasItsReasons(t *testing.T) {
	const guests = "guests/confidential"
	broken := errors.New("input/output error")
	parameter := func(name string, value bool) func(*Facts) {
		return func(f *Facts) { f.Confidential.Parameters[name] = known("/"+name, value) }
	}
	allOff := func(f *Facts) {
		for name := range f.Confidential.Parameters {
			parameter(name, false)(f)
		}
	}
	arch := func(name string) func(*Facts) { return func(f *Facts) { f.Host.Arch = name } }
	testChanges(t, map[string]change{
		"TDX with keys left":      {func(*Facts) {}, guests, Ready, ""},
		"TDX without a key left":  {func(f *Facts) { f.Confidential.Pools.Value["tdx"] = Pool{31, 31} }, guests, NotReady, ConfidentialExhausted},
		"TDX, keys unread":        {func(f *Facts) { f.Confidential.Pools = unknown[map[string]Pool]("/misc", broken) }, guests, Unknown, ReadFailed},
		"TDX off in the kernel":   {parameter(paramTDX, false), guests, NotReady, ConfidentialDisabled},
		"an Intel CPU without":    {func(f *Facts) { f.CPU.Info.Value.Flags = nil; parameter(paramTDX, false)(f) }, guests, NotReady, ConfidentialUnsupported},
		"plain SEV has ASIDs":     {epyc(), guests, Ready, ""},
		"no ASID left anywhere":   {epyc(func(f *Facts) { f.Confidential.Pools.Value["sev"] = Pool{410, 410} }), guests, NotReady, ConfidentialExhausted},
		"pools are not to be had": {epyc(func(f *Facts) { f.Confidential.Pools.Value = nil }), guests, Ready, ""},
		"all is off":              {epyc(allOff), guests, NotReady, ConfidentialDisabled},
		"all is off, in a VM":     {epyc(allOff, func(f *Facts) { f.CPU.Info.Value.Hypervisor = true }), guests, NotReady, ConfidentialUnsupported},
		"all is off, CPU lacks it": {
			epyc(allOff, func(f *Facts) { f.Confidential.SEV.Value = SEVCapability{} }), guests, NotReady, ConfidentialUnsupported,
		},
		"kvm_amd is not loaded": {
			epyc(func(f *Facts) { f.Confidential.Parameters, f.KVM.Modules.Value = nil, nil }), guests, NotReady, ModuleNotLoaded,
		},
		"no security processor":          {epyc(func(f *Facts) { f.Confidential.SEVDevice.Value = false }), guests, NotReady, DeviceMissing},
		"SNP without ES":                 {epyc(parameter(paramSEVES, false)), guests, Unknown, ConfidentialIncoherent},
		"ES without SEV":                 {epyc(parameter(paramSEV, false)), guests, Unknown, ConfidentialIncoherent},
		"SNP on a CPU without it":        {epyc(func(f *Facts) { f.Confidential.SEV.Value.SEVSNP = false }), guests, Unknown, ConfidentialIncoherent},
		"what SNP builds on is not read": {epyc(func(f *Facts) { f.Confidential.Parameters[paramSEV] = unknown[bool]("/sev", broken) }), guests, Unknown, ReadFailed},
		"Secure Execution": {
			func(f *Facts) { arch("s390x")(f); f.Confidential.SecureExecution = known(secureExecution, true) }, guests, Ready, "",
		},
		"Secure Execution off": {
			func(f *Facts) { arch("s390x")(f); f.Confidential.SecureExecution = known(secureExecution, false) }, guests, NotReady, ConfidentialDisabled,
		},
		"Arm": {arch("arm64"), guests, Unknown, RealmsUndefined},
	})
}

func TestParsePools(t *testing.T) {
	got, err := parsePools("sev 410\nsev_es 99\n", "sev 3\n")
	want := map[string]Pool{"sev": {410, 3}, "sev_es": {99, 0}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, lie := range []string{"sev", "sev x", "sev 1 2", "sev -1"} {
		if got, err := parsePools(lie, ""); err == nil {
			t.Errorf("capacity %q: got %v", lie, got)
		}
		if got, err := parsePools("", lie); err == nil {
			t.Errorf("current %q: got %v", lie, got)
		}
	}
}

func TestParseSEV(t *testing.T) {
	got := parseSEV(CPUIDRegisters{EAX: 0x1f, EBX: 0x616f, ECX: 509, EDX: 100})
	want := SEVCapability{SEV: true, SEVES: true, SEVSNP: true, ASIDs: 509, FirstASID: 100}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
