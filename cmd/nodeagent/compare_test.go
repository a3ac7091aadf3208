package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// surveyOf is what KVM answers on a CPU with some bits in leaf 7 ebx.
func surveyOf(ebx uint32) string {
	return fmt.Sprintf(`{"node": {"path": "/dev/kvm", "state": "opened"},
		"capabilities": {"value": [{"name": "TSC_CONTROL", "number": 60, "value": 1}]},
		"cpuid": {"value": [
			"0x00000000 0x00: eax=0x00000010 ebx=0x68747541 ecx=0x444d4163 edx=0x69746e65",
			"0x00000001 0x00: eax=0x00800f12 ebx=0x00000000 ecx=0x00000000 edx=0x00000000",
			"0x00000007 0x00: eax=0x00000000 ebx=0x%08x ecx=0x00000000 edx=0x00000000"]},
		"msrs": {"value": ["0x0000010a: 0x0000000000000001"]},
		"tscKHz": {"value": 2000000}}`, ebx)
}

// recordedHost is a recording of nothing but a survey.
func recordedHost(t *testing.T, ebx uint32) string {
	t.Helper()
	dir := t.TempDir()
	manifest := `{"version": 1, "arch": "amd64", "devices": {"survey": ` + surveyOf(ebx) + `}}`
	rewrite(t, filepath.Join(dir, "nodeagent-capture.json"), manifest)
	return dir
}

func TestCompareExitStatus(t *testing.T) {
	const avx2, bmi2 = 1 << 5, 1 << 8
	here := recordedHost(t, avx2)
	report := func(ebx uint32) string {
		return write(t, "report.json", `{"facts": {"survey": `+surveyOf(ebx)+`}}`)
	}
	for name, test := range map[string]struct {
		other  string
		status int
		want   string // the beginning of what is printed
	}{
		"the same":                         {report(avx2), 0, "SAME for VMs: safe to migrate in both directions\n"},
		"the other has more":               {report(avx2 | bmi2), 1, "SAFE to migrate VMs from A to B only\n"},
		"the other has less":               {report(0), 1, "SAFE to migrate VMs from B to A only\n"},
		"the other has something else":     {report(bmi2), 1, "UNSAFE to migrate VMs in both directions\n"},
		"a recording":                      {recordedHost(t, avx2), 0, "SAME"},
		"a report without a survey":        {write(t, "old.json", `{"facts": {}}`), 2, "UNDECIDED"},
		"a host on which KVM does not run": {host("vm-no-module"), 2, "UNDECIDED"},
		"a report cut off":                 {write(t, "cut.json", `{"facts": `), 2, "nodeagent: read report "},
		"no such file":                     {"/nonexistent.json", 2, "nodeagent: read report: stat /nonexistent.json: no such file or directory\n"},
		"something else":                   {"main_test.go", 2, "nodeagent: open recording main_test.go: "},
		"a directory of this host":         {t.TempDir(), 2, "nodeagent: "},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := runAgent(t, "check", "--root", here, "--compare", test.other)
			if status != test.status || !strings.HasPrefix(stdout+stderr, test.want) {
				t.Errorf("exit status %d, want %d\n%s%s", status, test.status, stdout, stderr)
			}
		})
	}
}

func TestCompareFormatsSayTheSame(t *testing.T) {
	args := []string{"check", "--root", recordedHost(t, 1<<5), "--compare", recordedHost(t, 0), "-o"}
	asJSON, _, _ := runAgent(t, append(args, "json")...)
	var comparison kvmcheck.Comparison
	if err := json.Unmarshal([]byte(asJSON), &comparison); err != nil {
		t.Fatal(err)
	}
	if comparison.AToB.Status != kvmcheck.NotReady || comparison.BToA.Status != kvmcheck.Ready || comparison.Differences[0].What != "avx2" {
		t.Errorf("got %s", asJSON)
	}
	asYAML, _, _ := runAgent(t, append(args, "yaml")...)
	if !strings.Contains(asYAML, "what: avx2") || !strings.Contains(asYAML, "hash: "+comparison.A.Value.Hash) {
		t.Errorf("got %s", asYAML)
	}
	if _, stderr, status := runAgent(t, append(args, "xml")...); status != 2 || !strings.Contains(stderr, "want table, json or yaml") {
		t.Errorf("exit status %d, %s", status, stderr)
	}
}

func TestComparisonOfReportsOfCheck(t *testing.T) {
	here := recordedHost(t, 1<<5)
	report, _, _ := runAgent(t, "check", "--root", here, "-o", "json")
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, status := runAgent(t, "check", "--root", here, "--compare", file); status != 0 || !strings.HasPrefix(stdout, "SAME") {
		t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
	}
}
