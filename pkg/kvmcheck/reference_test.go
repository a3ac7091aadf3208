package kvmcheck_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

func catalogue() kvmcheck.Catalogue {
	return kvmcheck.Catalogue{Checks: kvmcheck.Checks(), Causes: kvmcheck.Causes()}
}

func TestEveryReasonIsGivenBySomeCheck(t *testing.T) {
	for _, cause := range kvmcheck.Causes() {
		explanation, found := catalogue().Explain(cause.Reason)
		if !found || (len(explanation.Checks) == 0 && cause.Reason != kvmcheck.RuleFailed) {
			t.Errorf("no check of Checks has %s among its reasons", cause.Reason)
		}
	}
	if _, found := catalogue().Explain("NoSuchReason"); found {
		t.Error("an unknown reason is explained")
	}
}

func TestExplanationFitsTheTerminal(t *testing.T) {
	for _, cause := range catalogue().Causes {
		explanation, _ := catalogue().Explain(cause.Reason)
		var out bytes.Buffer
		if err := (kvmcheck.Table{Width: 100}).WriteExplanation(&out, explanation); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if len([]rune(line)) > 101 && strings.Count(line, " ") > 20 {
				t.Errorf("%s: a long line: %s", cause.Reason, line)
			}
		}
		for _, fix := range cause.Fixes {
			if first, _, _ := strings.Cut(fix.Do, " "); !strings.Contains(out.String(), first) {
				t.Errorf("%s lacks %q:\n%s", cause.Reason, fix.Do, out.String())
			}
		}
	}
}

// declared fails the test for findings with reasons that their check does not
// have among its own.
func declared(t *testing.T, findings []kvmcheck.Finding) {
	t.Helper()
	checks := slices.Concat(kvmcheck.Checks(), nodestack.Checks())
	for _, finding := range findings {
		if finding.Reason == "" || finding.Reason == kvmcheck.ReadFailed || finding.Area == kvmcheck.AreaOfRules {
			continue
		}
		i := slices.IndexFunc(checks, func(c kvmcheck.Check) bool { return c.Covers(finding) })
		if i < 0 || !slices.Contains(checks[i].Reasons, finding.Reason) {
			t.Errorf("%s gives %s, which is not among its reasons in Checks", finding.Key(), finding.Reason)
		}
	}
}
