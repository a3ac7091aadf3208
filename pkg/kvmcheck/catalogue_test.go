package kvmcheck

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// declaredReasons reads the constants of type Reason out of the source.
func declaredReasons(t *testing.T) []Reason {
	t.Helper()
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []Reason
	for _, entry := range names {
		if !strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" && len(spec.Values) == 1 {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil || value != spec.Names[0].Name {
					t.Errorf("constant %s is %q: name and value must be the same", spec.Names[0].Name, value)
				}
				reasons = append(reasons, Reason(value))
			}
			return true
		})
	}
	slices.Sort(reasons)
	return reasons
}

func TestEveryReasonIsExplainedOnce(t *testing.T) {
	var explained []Reason
	for _, cause := range Causes() {
		explained = append(explained, cause.Reason)
		if !strings.HasSuffix(cause.Meaning, ".") || strings.Contains(cause.Meaning, "\n") {
			t.Errorf("%s: the meaning is one paragraph of sentences: %q", cause.Reason, cause.Meaning)
		}
		for _, fix := range cause.Fixes {
			if fix.Do == "" {
				t.Errorf("%s: an empty fix", cause.Reason)
			}
		}
	}
	if diff := cmp.Diff(declaredReasons(t), explained); diff != "" {
		t.Errorf("declared and explained reasons differ:\n%s", diff)
	}
}

// declares fails the test for a finding with a reason that its check does not
// have among its own.
func declares(t *testing.T, finding Finding) {
	t.Helper()
	i := slices.IndexFunc(Checks(), func(c Check) bool { return c.Covers(finding) })
	if i < 0 || (finding.Reason != "" && finding.Reason != ReadFailed && !slices.Contains(Checks()[i].Reasons, finding.Reason)) {
		t.Errorf("%s gives %s, which is not among its reasons in Checks", finding.Key(), finding.Reason)
	}
}

func TestEveryFindingIsACheckInItsPlace(t *testing.T) {
	for name, facts := range map[string]Facts{"healthy": healthy(), "nothing known": {}} {
		last := -1
		for _, finding := range Evaluate(facts, Profile{}) {
			place := slices.IndexFunc(Checks(), func(c Check) bool {
				ok, err := path.Match(c.Area+"/"+c.Name, finding.Key())
				return ok && err == nil
			})
			if place < 0 {
				t.Errorf("%s: finding %s is no check of Checks", name, finding.Key())
			} else if place < last {
				t.Errorf("%s: finding %s is out of the order of Checks", name, finding.Key())
			}
			last = max(last, place)
		}
	}
	seen := make(map[string]bool)
	for _, check := range Checks() {
		key := check.Area + "/" + check.Name
		if seen[key] || check.Asks == "" || check.Reads == "" || check.Level == "" {
			t.Errorf("check %s: twice, or incomplete", key)
		}
		seen[key] = true
	}
}

func TestTheClosestPatternGrades(t *testing.T) {
	finding := Finding{Area: "kvm", Check: "nested"}
	for name, test := range map[string]struct {
		levels map[string]Level
		base   map[string]Level
		want   Level
	}{
		"the name before any pattern":            {map[string]Level{"kvm/nested": Required, "kvm/neste?": Skipped, "*/*": Skipped}, nil, Required},
		"the longest pattern":                    {map[string]Level{"kvm/n*": Required, "kvm/*": Skipped, "*/*": Skipped}, nil, Required},
		"of equal ones the alphabetically first": {map[string]Level{"kvm/n*": Skipped, "*/neste": Skipped, "*vm/n*": Required, "kv*/n*": Skipped}, nil, Required},
		"an own pattern before the base's name":  {map[string]Level{"*/*": Required}, map[string]Level{"kvm/nested": Skipped}, Required},
		"the base's when there is no own":        {map[string]Level{"cpu/*": Skipped}, map[string]Level{"kvm/*": Required}, Required},
		"a broken pattern matches nothing":       {map[string]Level{"kvm/[": Required}, nil, Optional},
		"the check's own when nobody says":       {nil, nil, Optional},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // maps have no order
				profile := Profile{Levels: test.levels, Base: &Profile{Levels: test.base}}
				if got := profile.level(Checks(), finding); got != test.want {
					t.Fatalf("got %s, want %s", got, test.want)
				}
			}
		})
	}
}

type fixedRule Finding

func (r fixedRule) Judge(Facts) Finding { return Finding(r) }

func TestRulesHaveTheirOwnLevelUnlessTheProfileSaysOtherwise(t *testing.T) {
	own := fixedRule{Area: AreaOfRules, Check: "own", Status: NotReady, Level: Required}
	for name, test := range map[string]struct {
		levels map[string]Level
		want   Level
	}{
		"their own": {nil, Required}, "the profile's": {map[string]Level{"rule/own": Optional}, Optional}, "none": {map[string]Level{"rule/*": Skipped}, ""},
	} {
		findings := Evaluate(healthy(), Profile{Levels: test.levels, Rules: []Rule{own}})
		var got Level
		if last := findings[len(findings)-1]; last.Key() == "rule/own" {
			got = last.Level
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestProfileGrades(t *testing.T) {
	profile := Profile{Name: "own", Levels: map[string]Level{"sriov/capability": Required, "devices/*": Skipped, "kvm/nested": Recommended}}
	levels := make(map[string]Level)
	for _, finding := range Evaluate(healthy(), profile) {
		levels[finding.Key()] = finding.Level
	}
	for key, want := range map[string]Level{
		"sriov/capability": Required, "kvm/nested": Recommended, "kvm/device": Required,
		"memory/hugepages-2Mi": Optional, "devices/tun": "", "devices/vhost-net": "",
	} {
		if levels[key] != want {
			t.Errorf("%s: got %q, want %q (%v)", key, levels[key], want, slices.Sorted(maps.Keys(levels)))
		}
	}
}
