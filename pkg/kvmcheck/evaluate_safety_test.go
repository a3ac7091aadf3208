package kvmcheck

import (
	"errors"
	"testing"
)

func healthyTime() TimeFacts {
	return TimeFacts{
		Clocksource: known("/current", "tsc"),
		Available:   known("/available", []string{"tsc", "hpet", "acpi_pm"}),
		TSCKHz:      known("/tsc_freq_khz", uint64(2100000)),
	}
}

func healthySafety() SafetyFacts {
	return SafetyFacts{
		Vulnerabilities: known("/vulnerabilities", []Vulnerability{
			{Name: "l1tf", Text: known("/l1tf", "Not affected")},
			{Name: "retbleed", Text: known("/retbleed", "Mitigation: Enhanced IBRS")},
		}),
		SMTActive:  known("/active", true),
		SMTControl: known("/control", "on"),
		Lockdown:   known("/lockdown", "integrity"),
		SELinux:    known("/enforce", "enforcing"),
		AppArmor:   known("/apparmor", false),
	}
}

func TestTimeAndSafetyHaveTheirReasons(t *testing.T) {
	broken := errors.New("input/output error")
	says := func(text string) func(*Facts) {
		return func(f *Facts) { f.Safety.Vulnerabilities.Value[0].Text = known("/l1tf", text) }
	}
	unread := func(f *Facts) { f.Safety.Vulnerabilities.Value[1].Text = unknown[string]("/retbleed", broken) }
	clock := func(current string, available ...string) func(*Facts) {
		return func(f *Facts) { f.Time.Clocksource.Value, f.Time.Available.Value = current, available }
	}
	testChanges(t, map[string]change{
		"the TSC stops in deep sleep":      {func(f *Facts) { f.CPU.Info.Value.Flags = []string{"constant_tsc"} }, "time/tsc", NotReady, TSCNotInvariant},
		"flags cannot be read":             {func(f *Facts) { f.CPU.Info = unknown[CPUInfo]("/proc/cpuinfo", broken) }, "time/tsc", Unknown, ReadFailed},
		"somebody chose a slow clock":      {clock("hpet", "tsc", "hpet"), "time/clocksource", NotReady, ClocksourceNotTSC},
		"the kernel gave the TSC up":       {clock("hpet", "hpet", "acpi_pm"), "time/clocksource", NotReady, TSCUnstable},
		"a clocksource that is not listed": {clock("tsc", "hpet"), "time/clocksource", Unknown, ReadFailed},
		"the clock of an Arm server":       {clock("arch_sys_counter", "arch_sys_counter"), "time/clocksource", Ready, ""},
		"an empty clocksource":             {clock("", "tsc"), "time/clocksource", Unknown, ReadFailed},
		"what is available is not known":   {func(f *Facts) { f.Time = TimeFacts{Clocksource: known("/c", "hpet")} }, "time/clocksource", Unknown, ReadFailed},
		"a VM with the hypervisor's clock": {func(f *Facts) { clock("kvm-clock", "kvm-clock", "acpi_pm")(f); f.CPU.Info.Value.Hypervisor = true }, "time/clocksource", NotReady, ClocksourceNotTSC},

		"one flaw is open":                  {says("Vulnerable"), "safety/mitigations", NotReady, CPUVulnerable},
		"one flaw is open, another unread":  {func(f *Facts) { says("Vulnerable")(f); unread(f) }, "safety/mitigations", NotReady, CPUVulnerable},
		"one flaw is unread":                {unread, "safety/mitigations", Unknown, ReadFailed},
		"one flaw the kernel cannot judge":  {says("Unknown: Dependent on hypervisor status"), "safety/mitigations", Unknown, MitigationUnknown},
		"mitigated but for hyperthreads":    {says("Mitigation: Clear CPU buffers; SMT vulnerable"), "safety/mitigations", Ready, ""},
		"hyperthreads are not safe":         {says("Mitigation: Clear CPU buffers; SMT vulnerable"), "safety/smt", NotReady, SMTVulnerable},
		"hyperthreads cannot be judged":     {unread, "safety/smt", Unknown, ReadFailed},
		"no list of flaws":                  {func(f *Facts) { f.Safety.Vulnerabilities = Reading[[]Vulnerability]{} }, "safety/smt", Unknown, ReadFailed},
		"two revisions of microcode":        {func(f *Facts) { f.CPU.Info.Value.Microcode = []CPUGroup{{1, "0-1"}, {2, "2-3"}} }, "safety/microcode", NotReady, MicrocodeDiffers},
		"microcode is hidden":               {func(f *Facts) { f.CPU.Info.Value.Microcode = nil }, "safety/microcode", Unknown, MicrocodeHidden},
		"the kernel keeps itself secret":    {func(f *Facts) { f.Safety.Lockdown.Value = "confidentiality" }, "safety/lockdown", NotReady, KernelConfidential},
		"SELinux is permissive":             {func(f *Facts) { f.Safety.SELinux.Value = "permissive" }, "safety/confinement", NotReady, VMsNotConfined},
		"AppArmor instead of SELinux":       {func(f *Facts) { f.Safety.SELinux.Value = "off"; f.Safety.AppArmor.Value = true }, "safety/confinement", Ready, ""},
		"SELinux unread, AppArmor off":      {func(f *Facts) { f.Safety.SELinux = unknown[string]("/enforce", broken) }, "safety/confinement", Unknown, ReadFailed},
		"SELinux off, AppArmor cannot tell": {func(f *Facts) { f.Safety.SELinux.Value = "off"; f.Safety.AppArmor = unknown[bool]("/a", broken) }, "safety/confinement", Unknown, ReadFailed},
	})
}

func TestParseVulnerability(t *testing.T) {
	for text, want := range map[string]struct {
		state exposure
		smt   bool
	}{
		"Not affected":              {exposureNone, false},
		"Vulnerable":                {exposureOpen, false},
		"Vulnerable: No microcode":  {exposureOpen, false},
		"Mitigation: Enhanced IBRS": {exposureNone, false},
		"Mitigation: Clear CPU buffers; SMT vulnerable":                             {exposureNone, true},
		"Mitigation: Clear CPU buffers; SMT Host state unknown":                     {exposureNone, false},
		"Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable":     {exposureOpen, true},
		"Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable": {exposureNone, true},
		"Mitigation: PTE Inversion; VMX: cache flushes, SMT disabled":               {exposureNone, false},
		"Mitigation: PTE Inversion; VMX: vulnerable, SMT vulnerable":                {exposureOpen, true},
		"Mitigation: PTE Inversion; VMX: vulnerable":                                {exposureOpen, false},
		"Mitigation: Retpolines; IBPB: conditional; BHI: Vulnerable":                {exposureOpen, false},
		"Mitigation: Enhanced / Automatic IBRS; BHI: Vulnerable, KVM: SW loop":      {exposureNone, false},
		"Mitigation: Vulnerable, KVM: Not affected":                                 {exposureNone, false},
		"KVM: Mitigation: Split huge pages":                                         {exposureNone, false},
		"KVM: Mitigation: VMX disabled":                                             {exposureNone, false},
		"KVM: Vulnerable":                                                           {exposureOpen, false},
		"Processor vulnerable":                                                      {exposureOpen, false},
		"Mitigation: untrained return thunk; SMT enabled with STIBP protection":     {exposureNone, false},
		"Mitigation: untrained return thunk; SMT vulnerable":                        {exposureNone, true},
		"Unknown: No mitigations":                                                   {exposureUnknown, false},
		"Unknown: Dependent on hypervisor status":                                   {exposureUnknown, false},
		"":        {exposureUnknown, false},
		"no idea": {exposureUnknown, false},
		"Mitigation: Retpolines; STIBP: disabled; PBRSB-eIBRS: Vulnerable":              {exposureOpen, false},
		"Mitigation: Enhanced IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: ": {exposureNone, false},
	} {
		if state, smt := parseVulnerability(text); state != want.state || smt != want.smt {
			t.Errorf("%q: got %d %t, want %d %t", text, state, smt, want.state, want.smt)
		}
	}
}

func TestParseBracketed(t *testing.T) {
	for text, want := range map[string]string{"none [integrity] confidentiality\n": "integrity", "[none]": "none"} {
		if got, err := parseBracketed(text); got != want || err != nil {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "none integrity", "[]", "[none"} {
		if got, err := parseBracketed(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}
