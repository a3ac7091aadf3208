package config

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	ruleName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	ruleReason = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{1,62}$`)
	ruleLevels = []string{"required", "recommended", "optional"}
)

// mostRules bounds what a check of the host may cost.
const mostRules = 100

// validateReadiness looks at profiles and rules.
func validateReadiness(readiness Readiness, known Known) []Error {
	var problems []Error
	bad := func(path, format string, args ...any) {
		problems = append(problems, Error{Path: "readiness." + path, Message: fmt.Sprintf(format, args...)})
	}
	own := slices.Sorted(maps.Keys(readiness.Profiles))
	profiles := slices.Concat(known.Profiles, own)
	if !slices.Contains(profiles, readiness.Profile) {
		bad("profile", "%q: unknown profile%s", readiness.Profile, Suggest(readiness.Profile, profiles))
	}
	validateRules(readiness.Rules, known, bad)
	checks := slices.Clone(known.Checks)
	for _, rule := range readiness.Rules {
		checks = append(checks, "rule/"+rule.Name)
	}
	for _, name := range own {
		at, profile := "profiles."+key(name), readiness.Profiles[name]
		switch {
		case !ruleName.MatchString(name):
			bad(at, "%q: want a name of small letters, digits and dashes", name)
		case slices.Contains(known.Profiles, name):
			bad(at, "%s is a built-in profile: give yours another name, and base: %s", name, name)
		case !slices.Contains(profiles, profile.Base):
			bad(at+".base", "%q: unknown profile%s", profile.Base, Suggest(profile.Base, profiles))
		default:
			if circle := circleOf(readiness.Profiles, name); circle != "" {
				bad(at+".base", "a circle: %s", circle)
			}
		}
		validateLevels(profile, checks, func(list, format string, args ...any) { bad(at+"."+list, format, args...) })
	}
	return problems
}

// validateLevels looks at the patterns of a profile.
func validateLevels(profile Profile, checks []string, bad func(path, format string, args ...any)) {
	first := make(map[string]string) // by pattern: the list that has it
	for _, list := range []struct {
		name     string
		patterns []string
	}{
		{"required", profile.Required}, {"recommended", profile.Recommended}, {"optional", profile.Optional}, {"skipped", profile.Skipped},
	} {
		for i, pattern := range list.patterns {
			at := fmt.Sprintf("%s[%d]", list.name, i)
			if _, err := path.Match(pattern, ""); err != nil {
				bad(at, "%q: not a pattern: %v", pattern, err)
			} else if before, twice := first[pattern]; twice {
				bad(at, "%q is in %s already", pattern, before)
			} else if !slices.ContainsFunc(checks, func(check string) bool { return overlap(pattern, check) }) {
				bad(at, "%q: no such check%s", pattern, Suggest(pattern, checks))
			}
			first[pattern] = list.name
		}
	}
}

// overlap reports whether a pattern and a check, which may be a pattern
// itself, have names in common.
func overlap(pattern, check string) bool {
	covered, _ := path.Match(pattern, check)
	named, _ := path.Match(check, pattern)
	return covered || named
}

func validateRules(rules []Rule, known Known, bad func(path, format string, args ...any)) {
	if len(rules) > mostRules {
		bad("rules", "%d rules: want at most %d", len(rules), mostRules)
		return
	}
	for i, rule := range rules {
		at := func(field string) string { return fmt.Sprintf("rules[%d].%s", i, field) }
		if !ruleName.MatchString(rule.Name) {
			bad(at("name"), "%q: want small letters, digits and dashes", rule.Name)
		} else if slices.ContainsFunc(rules[:i], func(r Rule) bool { return r.Name == rule.Name }) {
			bad(at("name"), "a second rule %s", rule.Name)
		}
		if err := known.Expression(rule.Expression); err != nil {
			bad(at("expression"), "%v", err)
		}
		if !ruleReason.MatchString(rule.Reason) {
			bad(at("reason"), "%q: want one word in CamelCase, such as TooFewPages", rule.Reason)
		}
		if !isPrinted(rule.Message) {
			bad(at("message"), "want what is said when the rule does not hold, on one line")
		}
		if !isPrinted(rule.Remedy) {
			bad(at("remedy"), "want what a person can do about it, on one line")
		}
		if !slices.Contains(ruleLevels, rule.Level) {
			bad(at("level"), "%q: want one of %v", rule.Level, ruleLevels)
		}
	}
}

// isPrinted reports whether a text is one line of at most 1,000 letters.
func isPrinted(text string) bool {
	other := func(r rune) bool { return unicode.Is(unicode.C, r) } // control, format, private
	return text != "" && utf8.RuneCountInString(text) <= 1000 && utf8.ValidString(text) && !strings.ContainsFunc(text, other)
}

// circleOf follows the bases of a profile: "a, b, a", or empty.
func circleOf(profiles map[string]Profile, name string) string {
	way := []string{name}
	for at := profiles[name].Base; ; at = profiles[at].Base {
		way = append(way, at)
		switch {
		case at == name:
			return strings.Join(way, ", ")
		case slices.Contains(way[:len(way)-1], at):
			return "" // that of another
		}
		if _, own := profiles[at]; !own {
			return ""
		}
	}
}

// key writes a key of a mapping as a part of a path.
func key(name string) string {
	if ruleName.MatchString(name) {
		return name
	}
	return "'" + name + "'"
}
