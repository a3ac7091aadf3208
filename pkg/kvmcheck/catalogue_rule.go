package kvmcheck

// RuleFailed is the reason of a rule that could not be evaluated.
const RuleFailed Reason = "RuleFailed"

// AreaOfRules is the area of the findings of a user's own rules.
const AreaOfRules = "rule"

func causesOfRules() []Cause {
	return []Cause{
		{RuleFailed, "A rule of your own configuration came to no verdict: its expression asked for a list entry or a map key that is not there, or took more than a rule may cost.", []Fix{
			{"", "look at what the rule is about: nodeagent check -o json | jq .facts"},
			{"", "ask before you look: size(LIST) > 0, KEY in MAP, has(FACT.FIELD)"},
		}},
	}
}
