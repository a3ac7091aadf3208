package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/kvmcheck/rule"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/nodestack"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// catalogue is every check that the agent makes.
func catalogue() kvmcheck.Catalogue {
	causes := slices.Concat(kvmcheck.Causes(), nodestack.Causes(), network.Causes())
	slices.SortFunc(causes, func(a, b kvmcheck.Cause) int { return cmp.Compare(a.Reason, b.Reason) })
	return kvmcheck.Catalogue{Checks: slices.Concat(kvmcheck.Checks(), nodestack.Checks(), network.Checks()), Causes: causes}
}

// known is what a configuration may name.
func known() config.Known {
	k := config.Known{
		URI: qemu.CheckURI,
		Expression: func(expression string) error {
			_, err := rule.Compile(rule.Source{Expression: expression})
			return err
		},
		Label: func(expression string) error {
			_, err := rule.CompileLabel("", expression)
			return err
		},
	}
	k.Groups, _ = metrics.Groups()
	k.Compats = metrics.Compats()
	for _, profile := range kvmcheck.Profiles() {
		k.Profiles = append(k.Profiles, profile.Name)
	}
	for _, check := range catalogue().Checks {
		k.Checks = append(k.Checks, check.Key())
	}
	return k
}

// profileOf makes the profile that a valid configuration names, with its rules.
func profileOf(readiness config.Readiness) (kvmcheck.Profile, error) {
	base, err := ownProfile(readiness.Profiles, readiness.Profile)
	if err != nil {
		return kvmcheck.Profile{}, err
	}
	profile := *base
	var bad []error
	for _, source := range readiness.Rules {
		compiled, err := rule.Compile(rule.Source{
			Name: source.Name, Expression: source.Expression, Reason: source.Reason,
			Message: source.Message, Remedy: source.Remedy, Level: kvmcheck.Level(source.Level),
		})
		if err != nil {
			bad = append(bad, fmt.Errorf("compile rule %s: %w", source.Name, err))
			continue
		}
		profile.Rules = append(profile.Rules, compiled)
	}
	return profile, errors.Join(bad...)
}

// ownProfile finds a profile by its name, with the bases it stands on.
func ownProfile(own map[string]config.Profile, name string) (*kvmcheck.Profile, error) {
	for _, builtIn := range kvmcheck.Profiles() {
		if builtIn.Name == name {
			return &builtIn, nil
		}
	}
	from, found := own[name]
	if !found {
		return nil, fmt.Errorf("profile %q: unknown%s", name, config.Suggest(name, profileNames(own)))
	}
	base, err := ownProfile(own, from.Base)
	if err != nil {
		return nil, err
	}
	profile := &kvmcheck.Profile{Name: name, Base: base, Levels: make(map[string]kvmcheck.Level)}
	for level, patterns := range map[kvmcheck.Level][]string{
		kvmcheck.Required: from.Required, kvmcheck.Recommended: from.Recommended,
		kvmcheck.Optional: from.Optional, kvmcheck.Skipped: from.Skipped,
	} {
		for _, pattern := range patterns {
			profile.Levels[pattern] = level
		}
	}
	return profile, nil
}

// profileNames lists the built-in profiles, then those of the user's own.
func profileNames(own map[string]config.Profile) []string {
	return slices.Concat(known().Profiles, slices.Sorted(maps.Keys(own)))
}
