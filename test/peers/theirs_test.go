package peers

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answer is what a peer says about one thing.
type answer struct {
	peer    string
	check   string // in its words, without quotes
	verdict string // PASS, WARN, FAIL, or NOTE of virt-host-validate
	detail  string
}

// validateLine is "  QEMU: Checking for cgroup 'cpu' controller support   : WARN (Enable …)".
var validateLine = regexp.MustCompile(`^\s*QEMU: Checking (?:for |if )?(.*?)\s+: (PASS|WARN|FAIL|NOTE)(?: \((.*)\))?$`)

// parseValidate reads the output of virt-host-validate qemu.
func parseValidate(text string) []answer {
	var answers []answer
	for line := range strings.Lines(text) {
		if match := validateLine.FindStringSubmatch(strings.TrimRight(line, "\n")); match != nil {
			answers = append(answers, answer{"virt-host-validate", strings.ReplaceAll(match[1], "'", ""), match[2], match[3]})
		}
	}
	return answers
}

// parseKVMOK reads the output of kvm-ok: some lines of information and, last,
// its verdict.
func parseKVMOK(text string) []answer {
	known := []struct{ line, check, verdict string }{
		{"INFO: Your CPU does not support KVM extensions", "CPU extensions", "FAIL"},
		{"INFO: Your CPU supports KVM extensions", "CPU extensions", "PASS"},
		{"INFO: /dev/kvm exists", "device /dev/kvm exists", "PASS"},
		{"INFO: /dev/kvm does not exist", "device /dev/kvm exists", "FAIL"},
		{"INFO: KVM (svm) is disabled by your BIOS", "firmware", "FAIL"},
		{"INFO: KVM (vmx) is disabled by your BIOS", "firmware", "FAIL"},
		{"KVM acceleration can be used", "verdict", "PASS"},
		{"KVM acceleration can NOT be used", "verdict", "FAIL"},
	}
	var answers []answer
	for line := range strings.Lines(text) {
		for _, k := range known {
			if strings.TrimSpace(line) == k.line {
				answers = append(answers, answer{"kvm-ok", k.check, k.verdict, k.line})
			}
		}
	}
	return answers
}

func TestPeersAreUnderstood(t *testing.T) {
	got := parseValidate(`  QEMU: Checking for hardware virtualization                                 : PASS
  QEMU: Checking if device '/dev/kvm' is accessible                          : FAIL (Check /dev/kvm is world writable or you are in a group that is allowed to access it)
setlocale: No such file or directory
  QEMU: Checking for cgroup 'cpu' controller support                         : WARN (Enable 'cpu' in kernel Kconfig file or mount/enable cgroup controller in your system)
`)
	want := []answer{
		{"virt-host-validate", "hardware virtualization", "PASS", ""},
		{"virt-host-validate", "device /dev/kvm is accessible", "FAIL", "Check /dev/kvm is world writable or you are in a group that is allowed to access it"},
		{"virt-host-validate", "cgroup cpu controller support", "WARN", "Enable 'cpu' in kernel Kconfig file or mount/enable cgroup controller in your system"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
		t.Error(diff)
	}
	if got := parseKVMOK("INFO: /dev/kvm exists\nKVM acceleration can be used\n"); len(got) != 2 || got[1].verdict != "PASS" {
		t.Errorf("got %v", got)
	}
}
