package kvmcheck

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Profile says what a kind of node needs. The zero value is kubevirt.
type Profile struct {
	Name   string
	Base   *Profile         // asked for what Levels does not name; nil: the checks' own levels
	Levels map[string]Level // by "area/check" or pattern ("area/*")
	Rules  []Rule           // checks of the user's own, besides [Checks]
}

// Rule is a check of the user's own.
type Rule interface {
	// Judge gives the rule's finding, with its own level. It is pure, and
	// bounded in time.
	Judge(facts Facts) Finding
}

// DefaultProfile is the name of the profile of a node that is told nothing.
const DefaultProfile = "kubevirt"

// Profiles lists the built-in profiles, the default first.
func Profiles() []Profile {
	return []Profile{
		{Name: DefaultProfile},
		{Name: "libvirt", Levels: map[string]Level{
			"devices/vhost-net": Recommended, // QEMU moves the traffic itself without it
			"kubelet/*":         Skipped,
			"runtime/*":         Skipped,
			"cni/*":             Skipped,
			"storage/*":         Skipped,
		}},
		{Name: "sriov", Levels: map[string]Level{
			"iommu/*":          Required,
			"vfio/*":           Required,
			"sriov/capability": Required,
		}},
		{Name: "confidential", Levels: map[string]Level{
			"guests/confidential": Required,
			"kvm/nested":          Skipped, // such guests run no VMs themselves
		}},
	}
}

// Purpose says in one sentence for which nodes a built-in profile is.
func (p Profile) Purpose() string {
	switch p.Name {
	case "", DefaultProfile:
		return "a Kubernetes node on which KubeVirt runs VMs"
	case "libvirt":
		return "a host on which libvirt runs VMs, without Kubernetes"
	case "sriov":
		return "a node whose VMs are given devices or VFs"
	case "confidential":
		return "a node whose VMs hide their memory from the host"
	default:
		return "a profile of your own"
	}
}

// level is what a finding means under the profile: as the profile names it,
// else as its base does, else as the check or the rule itself does.
func (p Profile) level(checks []Check, finding Finding) Level {
	for at := &p; at != nil; at = at.Base {
		if pattern, found := closest(slices.Collect(maps.Keys(at.Levels)), finding.Key()); found {
			return at.Levels[pattern]
		}
	}
	for _, check := range checks {
		if check.Covers(finding) {
			return check.Level
		}
	}
	return cmp.Or(finding.Level, Optional)
}

// closest picks the pattern that says most about a key: the key itself, else
// the longest that matches, of equally long ones the alphabetically first.
func closest(patterns []string, key string) (pattern string, found bool) {
	if slices.Contains(patterns, key) {
		return key, true
	}
	fitting := slices.DeleteFunc(patterns, func(p string) bool { return !matches(p, key) })
	if len(fitting) == 0 {
		return "", false
	}
	return slices.MinFunc(fitting, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	}), true
}

// Grade gives findings their level under the profile, and leaves out what it skips.
func (p Profile) Grade(findings []Finding) []Finding {
	return p.GradeBy(Checks(), findings)
}

// GradeBy is Grade for findings of the checks of another catalogue.
func (p Profile) GradeBy(checks []Check, findings []Finding) []Finding {
	graded := make([]Finding, 0, len(findings))
	for _, finding := range findings {
		if finding.Level = p.level(checks, finding); finding.Level != Skipped {
			graded = append(graded, finding)
		}
	}
	return graded
}

// LevelOf is what a check means under the profile.
func (p Profile) LevelOf(check Check) Level {
	return p.level([]Check{check}, Finding{Area: check.Area, Check: check.Name})
}

// judge asks the profile's own rules.
func (p Profile) judge(facts Facts) []Finding {
	findings := make([]Finding, 0, len(p.Rules))
	for _, rule := range p.Rules {
		findings = append(findings, rule.Judge(facts))
	}
	return findings
}
