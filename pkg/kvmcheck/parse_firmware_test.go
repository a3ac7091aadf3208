package kvmcheck

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCPULists(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "0-3,8\n": {0, 1, 2, 3, 8}, "2,4-5": {2, 4, 5}} {
		got, err := parseCPUList(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %s %v", text, diff, err)
		}
		if back := formatCPUList(got); back != strings.TrimSpace(text) {
			t.Errorf("%q came back as %q", text, back)
		}
	}
	for _, text := range []string{"-1", "3-1", "0-", "a", "0-99999999", "0,,1"} {
		if got, err := parseCPUList(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestParseMicrocode(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want []CPUGroup
	}{
		"the same on all": {
			"processor\t: 0\nmicrocode\t: 0x2b000603\n\nprocessor\t: 1\nmicrocode\t: 0x2b000603\n", []CPUGroup{{0x2b000603, "0-1"}},
		},
		"two revisions": {
			"processor: 0\nmicrocode: 0x1\nprocessor: 1\nmicrocode: 0x2\nprocessor: 2\nmicrocode: 0x1\n", []CPUGroup{{1, "0,2"}, {2, "1"}},
		},
		"none":    {"processor: 0\n", nil},
		"garbage": {"processor: 0\nmicrocode: new\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseMicrocode([]byte(test.in))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseCommonFlags(t *testing.T) {
	got := parseCommonFlags([]byte("flags: fpu constant_tsc nonstop_tsc\nflags: nonstop_tsc\n"), 2)
	if diff := cmp.Diff([]string{"nonstop_tsc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseHypervisorSignature(t *testing.T) {
	for name, test := range map[string]struct {
		id   CPUIDRegisters
		want string
	}{
		"KVM":       {CPUIDRegisters{0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d}, "KVM"},
		"Hyper-V":   {CPUIDRegisters{0x40000005, 0x7263694d, 0x666f736f, 0x76482074}, "Hyper-V"},
		"QEMU TCG":  {CPUIDRegisters{0x40000001, 0x54474354, 0x43544743, 0x47435447}, "QEMU TCG"},
		"a new one": {CPUIDRegisters{0, 0x61616161, 0x61616161, 0}, "aaaaaaaa"},
		"nothing":   {CPUIDRegisters{}, ""},
	} {
		if got := parseHypervisorSignature(test.id); got != test.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestParseSysinfo(t *testing.T) {
	const lpar = "Manufacturer:         IBM\nType:                 8561\nLPAR Number:          3\nLPAR Name:            NODE3\n"
	for name, test := range map[string]struct {
		in   string
		want Hypervisor
	}{
		"a logical partition": {lpar, Hypervisor{}},
		"a VM":                {lpar + "VM00 Name:            NODE\nVM00 Control Program: KVM/Linux       \n", Hypervisor{"KVM/Linux", 1}},
		"a VM in z/VM in an LPAR": {
			lpar + "VM00 Control Program: KVM/Linux\nVM01 Control Program: z/VM    7.3.0\n", Hypervisor{"KVM/Linux", 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseSysinfo([]byte(test.in))
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
	if got, err := parseSysinfo([]byte("no idea\n")); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

func FuzzPlatformParsers(f *testing.F) {
	for _, seed := range []string{
		"0-3,8", "processor: 0\nmicrocode: 0x1\nflags: constant_tsc\n", "Manufacturer: IBM\nVM00 Control Program: z/VM\n",
		"Mitigation: PTE Inversion; VMX: vulnerable, SMT vulnerable", "none [integrity]", "sev 410\n", `{"registers":{"/dev/cpu/0/msr 0x3a":{"words":["0x5"]}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text := string(data)
		if cpus, err := parseCPUList(text); err == nil {
			if len(cpus) > 2*maxCPU+1 {
				t.Errorf("%d CPUs", len(cpus))
			}
			_ = formatCPUList(cpus)
		}
		_ = parseMicrocode(data)
		_ = parseCommonFlags(data, 1)
		_, _ = parseSysinfo(data)
		_, _ = parseVulnerability(text)
		_, _ = parseBracketed(text)
		_, _ = parsePools(text, text)
		if devices, err := parseAnswers(data); err == nil {
			_, _ = devices.ReadMSR(0, msrFeatureControl)
			_, _ = devices.ReadCPUID(0, leafFeatures)
		}
	})
}
