package kvmcheck

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Catalogue is which checks there are, and what their reasons mean.
type Catalogue struct {
	Checks []Check
	Causes []Cause
}

// Explanation is all that a person can be told about a reason.
type Explanation struct {
	Cause
	Checks []Check `json:"checks"` // those that give it
}

// Explain finds a reason.
func (c Catalogue) Explain(reason Reason) (explanation Explanation, found bool) {
	i := slices.IndexFunc(c.Causes, func(cause Cause) bool { return cause.Reason == reason })
	if i < 0 {
		return Explanation{}, false
	}
	return Explanation{Cause: c.Causes[i], Checks: c.checksThatGive(reason)}, true
}

func (c Catalogue) checksThatGive(reason Reason) []Check {
	checks := []Check{}
	for _, check := range c.Checks {
		if reason == ReadFailed || slices.Contains(check.Reasons, reason) {
			checks = append(checks, check)
		}
	}
	return checks
}

// WriteExplanation prints a reason: its meaning, the checks that give it with
// what they read, and what to do.
func (t Table) WriteExplanation(w io.Writer, explanation Explanation) error {
	var out strings.Builder
	paragraph := func(first, rest, text string) {
		for i, line := range wrap(Printable(text), max(t.Width-len(rest), minDetail)) {
			if i == 0 {
				fmt.Fprintf(&out, "%s%s\n", first, line)
			} else {
				fmt.Fprintf(&out, "%s%s\n", rest, line)
			}
		}
	}
	fmt.Fprintf(&out, "%s\n\n", t.paint(yellow, string(explanation.Reason)))
	paragraph("", "", explanation.Meaning)
	if len(explanation.Checks) > 0 {
		out.WriteString("\nChecks that give it:\n")
	}
	for _, check := range explanation.Checks {
		fmt.Fprintf(&out, "  %s\n", check.Key())
		paragraph("      asks:  ", "             ", check.Asks)
		paragraph("      reads: ", "             ", check.Reads)
	}
	if len(explanation.Fixes) > 0 {
		out.WriteString("\nWhat to do:\n")
	}
	for _, fix := range explanation.Fixes {
		text := fix.Do
		if fix.On != "" {
			text = fix.On + ": " + text
		}
		paragraph("  - ", "    ", text)
	}
	_, err := io.WriteString(w, out.String())
	return err
}
