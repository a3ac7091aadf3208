package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func anyURI(uri string) error {
	if strings.HasPrefix(uri, "qemu") {
		return nil
	}
	return errors.New("want a qemu URI")
}

func known() Known {
	expression := func(expression string) error {
		if strings.Contains(expression, "facts.") {
			return nil
		}
		return errors.New("line 1, column 1: no facts")
	}
	return Known{
		URI:        anyURI,
		Expression: expression,
		Label:      expression,
		Profiles:   []string{"kubevirt", "libvirt"},
		Groups:     []string{"block", "cpu"},
		Compats:    []string{"kubevirt"},
		Checks:     []string{"kvm/device", "kvm/nested", "iommu/firmware", "vfio/driver", "memory/hugepages*"},
	}
}

func TestParseRefusesWithLineAndPath(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"a misspelt field": {
			"web:\n  listenAdress: x\n",
			"line 2: web.listenAdress: unknown field; did you mean listenAddress?",
		},
		"an unknown section": {
			"log: {}\nstorage: {}\n",
			"line 2: storage: unknown field; there are web, telemetry, readiness, network, kubernetes, log",
		},
		"a group that is none": {
			"telemetry:\n  groups:\n    cpu: false\n    blok: true\n",
			"line 4: telemetry.groups.blok: unknown group; did you mean block?",
		},
		"a group that is neither on nor off": {
			"telemetry:\n  groups:\n    cpu: maybe\n",
			`line 3: telemetry.groups.cpu: "maybe" does not fit: want a bool`,
		},
		"an exporter that is not spoken": {
			"telemetry: {compat: [node-exporter]}\n",
			`line 1: telemetry.compat[0]: "node-exporter": unknown exporter; there are kubevirt`,
		},
		"a statistic that is none": {
			"telemetry: {kvmStats: [exits, 'a b']}\n",
			`line 1: telemetry.kvmStats[1]: "a b": want a name as KVM writes it, such as halt_exits`,
		},
		"a limit below nothing": {
			"telemetry:\n  maxSeries: -1\n  maxSeriesPerVM: -2\n",
			"line 3: telemetry.maxSeriesPerVM: -2: want at least 0\nline 2: telemetry.maxSeries: -1: want at least 0",
		},
		"a bad duration": {
			"telemetry:\n  budget: 5 minutes\n",
			`line 2: telemetry.budget: "5 minutes" is not a duration; write it as 500ms, 5s or 1m30s`,
		},
		"a number for a duration": {
			"\nreadiness: {interval: 5}\n",
			`line 2: readiness.interval: "5" is not a duration; write it as 500ms, 5s or 1m30s`,
		},
		"a scalar for a section": {
			"# a comment\nweb: 3\n",
			"line 2: web: int was used where mapping is expected",
		},
		"a scalar for a list": {
			"telemetry:\n  libvirtURIs: qemu:///system\n",
			"line 2: telemetry.libvirtURIs: string was used where sequence is expected",
		},
		"a mapping in a list of strings": {
			"telemetry:\n  libvirtURIs:\n  - {a: b}\n",
			`line 3: telemetry.libvirtURIs[0]: "{" does not fit: want a string`,
		},
		"a field given twice": {
			"web:\n  listenAddress: :1\n  listenAddress: :2\n",
			`line 3: mapping key "listenAddress" already defined at [2:3]`,
		},
		"a mistake before a bare end of the document": {
			"log:\n  levl: info\n---\n",
			"line 2: log.levl: unknown field; did you mean level?",
		},
		"broken YAML": {
			"web:\n listenAddress: [a\n",
			"line 2: sequence end token ']' not found",
		},
		"a second document": {
			"web: {}\n---\nlog: {}\n",
			"line 3: a second document: a configuration is one document",
		},
		"an impossible port": {
			"web:\n  listenAddress: :99999\n",
			`line 2: web.listenAddress: ":99999": port "99999": want 0 to 65535`,
		},
		"a refused URI": {
			"telemetry:\n  libvirtURIs:\n  - qemu:///system\n  - http://x\n",
			"line 4: telemetry.libvirtURIs[1]: want a qemu URI",
		},
		"a kubelet's directory that is none": {
			"telemetry:\n  kubelet: var/lib\n",
			`line 2: telemetry.kubelet: "var/lib": want an absolute path, or nothing`,
		},
		"a maximum age below the budget": {
			"telemetry:\n  budget: 2s\n  maxAge: 1s\n",
			"line 3: telemetry.maxAge: 1s: want the budget (2s) to 10m",
		},
		"a maximum age that hides how old numbers are": {
			"telemetry:\n  maxAge: 11m\n",
			"line 2: telemetry.maxAge: 11m0s: want the budget (500ms) to 10m",
		},
		"a default that no longer fits": {
			"telemetry:\n  budget: 10s\n",
			"telemetry.callTimeout: 5s: want the budget (10s) to 10m",
		},
		"a label of one's own, wrong in all": {
			"kubernetes:\n  labels:\n  - {name: Size, expression: '1'}\n  - {name: a, expression: facts.x}\n  - {name: a, expression: facts.x}\n",
			`line 3: kubernetes.labels[0].name: "Size": want small letters, digits and dashes, at most 56` + "\n" +
				"line 3: kubernetes.labels[0].expression: line 1, column 1: no facts\nline 5: kubernetes.labels[2].name: a second label a",
		},
		"an unknown profile": {
			"readiness: {profile: libvrit}\n",
			`line 1: readiness.profile: "libvrit": unknown profile; did you mean libvirt?`,
		},
		"an unknown base": {
			"readiness:\n  profiles:\n    gpu: {base: bare}\n",
			`line 3: readiness.profiles.gpu.base: "bare": unknown profile; there are kubevirt, libvirt, gpu`,
		},
		"no base": {
			"readiness:\n  profiles:\n    gpu:\n      skipped: [kvm/nested]\n",
			`line 4: readiness.profiles.gpu.base: "": unknown profile; there are kubevirt, libvirt, gpu`,
		},
		"bases in a circle": {
			"readiness:\n  profiles:\n    a: {base: b}\n    b: {base: c}\n    c: {base: b}\n",
			"line 4: readiness.profiles.b.base: a circle: b, c, b\nline 5: readiness.profiles.c.base: a circle: c, b, c",
		},
		"a profile that is its own base": {
			"readiness: {profiles: {a: {base: a}}}\n",
			"line 1: readiness.profiles.a.base: a circle: a, a",
		},
		"a built-in profile made anew": {
			"readiness:\n  profiles:\n    libvirt: {base: kubevirt}\n",
			"line 3: readiness.profiles.libvirt: libvirt is a built-in profile: give yours another name, and base: libvirt",
		},
		"a profile given twice": {
			"readiness:\n  profiles:\n    a: {base: libvirt}\n    a: {base: kubevirt}\n",
			`line 4: mapping key "a" already defined at [3:5]`,
		},
		"a profile's odd name": {
			"readiness:\n  profiles:\n    My profile: {base: libvirt}\n",
			`line 3: readiness.profiles.'My profile': "My profile": want a name of small letters, digits and dashes`,
		},
		"a check that is none": {
			"readiness:\n  profiles:\n    a:\n      base: libvirt\n      required:\n      - kvm/device\n      - kvm/devise\n",
			`line 7: readiness.profiles.a.required[1]: "kvm/devise": no such check; did you mean kvm/device?`,
		},
		"a pattern that matches nothing": {
			"readiness: {profiles: {a: {base: libvirt, skipped: [gpu/*]}}}\n",
			`line 1: readiness.profiles.a.skipped[0]: "gpu/*": no such check; there are kvm/device, kvm/nested, iommu/firmware, vfio/driver, memory/hugepages*`,
		},
		"a pattern that is none": {
			"readiness: {profiles: {a: {base: libvirt, skipped: ['kvm/[']}}}\n",
			`line 1: readiness.profiles.a.skipped[0]: "kvm/[": not a pattern: syntax error in pattern`,
		},
		"a check at two levels": {
			"readiness: {profiles: {a: {base: libvirt, required: ['kvm/*'], skipped: ['kvm/*']}}}\n",
			`line 1: readiness.profiles.a.skipped[0]: "kvm/*" is in required already`,
		},
		"a misspelt field of a profile": {
			"readiness:\n  profiles:\n    a:\n      require: []\n",
			"line 4: readiness.profiles.a.require: unknown field; did you mean required?",
		},
		"a misspelt field of a rule": {
			"readiness:\n  rules:\n  - name: a\n    fix: b\n",
			"line 4: readiness.rules[0].fix: unknown field; there are name, expression, reason, message, remedy, level",
		},
		"a mistake in an expression": {
			"readiness:\n  rules:\n  - name: a\n    expression: 1 + 1\n    reason: A1\n    message: a\n    remedy: b\n    level: optional\n",
			"line 4: readiness.rules[0].expression: line 1, column 1: no facts",
		},
		"a rule without anything": {
			"readiness:\n  rules:\n  - name: a\n    expression: facts.a\n",
			`line 3: readiness.rules[0].reason: "": want one word in CamelCase, such as TooFewPages
line 3: readiness.rules[0].message: want what is said when the rule does not hold, on one line
line 3: readiness.rules[0].remedy: want what a person can do about it, on one line
line 3: readiness.rules[0].level: "": want one of [required recommended optional]`,
		},
		"two rules of one name": {
			"readiness:\n  rules:\n  - &a {name: a, expression: facts.a, reason: Aa, message: a, remedy: a, level: optional}\n  - *a\n",
			"line 4: readiness.rules[1].name: a second rule a",
		},
		"a rule's odd name": {
			"readiness: {rules: [{name: a/b, expression: facts.a, reason: Aa, message: a, remedy: a, level: skipped}]}\n",
			"line 1: readiness.rules[0].name: \"a/b\": want small letters, digits and dashes\nline 1: readiness.rules[0].level: \"skipped\": want one of [required recommended optional]",
		},
		"a list for a mapping": {
			"readiness:\n  profiles: [a]\n",
			"line 2: readiness.profiles: sequence was used where mapping is expected",
		},
		"two mistakes at once": {
			"log:\n  level: loud\n  format: xml\n",
			"line 2: log.level: \"loud\": want one of [debug info warn error]\nline 3: log.format: \"xml\": want one of [auto text json]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(test.in), known())
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseFillsInDefaults(t *testing.T) {
	for name, in := range map[string]string{
		"an empty file":     "",
		"only comments":     "# nothing\n",
		"an empty document": "---\n",
		"null":              "~\n",
		"empty sections":    "web: {}\ntelemetry: {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(in), known())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Default(), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrintedConfigurationParsesToItself(t *testing.T) {
	want := Default()
	want.Telemetry.LibvirtURIs = []string{"qemu:///system", "qemu+unix:///system?socket=/run/a b"}
	example := Example().Readiness
	want.Readiness.Profiles, want.Readiness.Rules, want.Readiness.Profile = example.Profiles, example.Rules, "gpu"
	want.Kubernetes.Labels = Example().Kubernetes.Labels
	text, err := Print(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text, known())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPrintedExamplesAreValid takes the comment sign off the examples.
func TestPrintedExamplesAreValid(t *testing.T) {
	text, err := Print(Default())
	if err != nil {
		t.Fatal(err)
	}
	var example strings.Builder
	within, section := false, ""
	for line := range strings.Lines(string(text)) {
		body, comment := strings.CutPrefix(line, "  # ")
		switch {
		case line == "readiness:\n" || line == "kubernetes:\n":
			section = line
		case comment && (body == "profiles:\n" || body == "rules:\n" || body == "labels:\n"):
			within = true
			example.WriteString(section)
			section = ""
			fallthrough
		case comment && within:
			example.WriteString("  " + body)
		default:
			within = false
		}
	}
	config, err := Parse([]byte(example.String()), known())
	if err != nil {
		t.Fatalf("%v\n%s", err, example.String())
	}
	want := Default()
	want.Readiness.Profiles, want.Readiness.Rules = Example().Readiness.Profiles, Example().Readiness.Rules
	want.Kubernetes.Labels = Example().Kubernetes.Labels
	if diff := cmp.Diff(want, config); diff != "" {
		t.Error(diff)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	var walk func(of reflect.Type)
	walk = func(of reflect.Type) {
		for _, field := range reflect.VisibleFields(of) {
			if !strings.HasSuffix(field.Tag.Get("doc"), ".") || field.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s: want a yaml name and a doc of whole sentences", of.Name(), field.Name)
			}
			inner := field.Type
			if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("web:\n  listenAddress: :9477\n"))
	f.Add([]byte("telemetry: {libvirtURIs: [qemu:///system], budget: 1s}\n---\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("readiness: {profiles: {a: {base: b, skipped: ['kvm/*']}, b: {base: a}}, rules: [{name: c}]}\n"))
	f.Add([]byte("0\n---"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := Parse(data, known())
		if err != nil {
			return
		}
		if problems := Validate(config, known()); len(problems) > 0 {
			t.Errorf("accepted in spite of %v", problems)
		}
	})
}
