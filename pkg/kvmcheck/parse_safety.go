package kvmcheck

import (
	"fmt"
	"strings"
)

// exposure is what a vulnerability means to VMs; the zero value is that nobody can tell.
type exposure int

const (
	exposureUnknown exposure = iota
	exposureNone             // not affected, or mitigated
	exposureOpen
)

// parseVulnerability reads one line of /sys/devices/system/cpu/vulnerabilities,
// and whether it says that guests can attack across hyperthreads. The line is
// clauses apart by semicolons; a clause may end in what holds for KVM, which
// then counts alone ("BHI: Vulnerable, KVM: SW loop"). Its first word is not
// enough: "Mitigation: ...; BHI: Vulnerable".
func parseVulnerability(text string) (state exposure, smt bool) {
	switch head, _, _ := strings.Cut(text, ":"); head {
	case "Not affected":
		return exposureNone, false
	case "Mitigation", "KVM", "Processor vulnerable":
		state = exposureNone
	default:
		if !strings.HasPrefix(text, "Vulnerable") {
			return exposureUnknown, false // "Unknown: Dependent on hypervisor status"
		}
		state = exposureNone
	}
	for clause := range strings.SplitSeq(text, ";") {
		if _, ofKVM, found := strings.Cut(clause, ", KVM:"); found {
			clause = ofKVM
		}
		for part := range strings.SplitSeq(clause, ",") {
			part = strings.ToLower(strings.TrimSpace(part))
			switch {
			case !strings.Contains(part, "vulnerable"):
			case strings.HasPrefix(part, "smt "):
				smt = true
			default:
				state = exposureOpen
			}
		}
	}
	return state, smt
}

// parseBracketed returns the chosen word of a kernel's list of choices:
// "none [integrity] confidentiality".
func parseBracketed(text string) (string, error) {
	for word := range strings.FieldsSeq(text) {
		inner, opened := strings.CutPrefix(word, "[")
		inner, closed := strings.CutSuffix(inner, "]")
		if opened && closed && inner != "" {
			return inner, nil
		}
	}
	return "", fmt.Errorf("no [word] in %.40q", text)
}
