package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// explain prints what a reason means, and what to do: one of the agent's own,
// or one that a rule of the configuration gives.
func explain(w io.Writer, output, reason string, rules []config.Rule) error {
	explanation, found := catalogue().Explain(kvmcheck.Reason(reason))
	if !found {
		explanation, found = explainRule(rules, reason)
	}
	if !found {
		return fmt.Errorf("--explain %q: unknown reason%s", reason, config.Suggest(reason, reasonNames(rules)))
	}
	if output == "table" {
		return tableFor(w).WriteExplanation(w, explanation)
	}
	return writeData(w, output, explanation)
}

func explainRule(rules []config.Rule, reason string) (explanation kvmcheck.Explanation, found bool) {
	explanation.Reason = kvmcheck.Reason(reason)
	for _, rule := range rules {
		if rule.Reason != reason {
			continue
		}
		if !found {
			explanation.Meaning = rule.Message
		}
		explanation.Fixes = append(explanation.Fixes, kvmcheck.Fix{Do: rule.Remedy})
		explanation.Checks = append(explanation.Checks, kvmcheck.Check{
			Area: kvmcheck.AreaOfRules, Name: rule.Name, Level: kvmcheck.Level(rule.Level),
			Asks: rule.Message, Reads: rule.Expression, Reasons: []kvmcheck.Reason{explanation.Reason},
		})
		found = true
	}
	return explanation, found
}

func reasonNames(rules []config.Rule) []string {
	var names []string
	for _, cause := range catalogue().Causes {
		names = append(names, string(cause.Reason))
	}
	for _, rule := range rules {
		names = append(names, rule.Reason)
	}
	return names
}

func completeReasons() []cobra.Completion {
	var all []cobra.Completion
	for _, cause := range catalogue().Causes {
		all = append(all, cobra.CompletionWithDesc(string(cause.Reason), cause.Meaning))
	}
	return all
}
