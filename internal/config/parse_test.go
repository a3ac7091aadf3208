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

func TestParseRefusesWithLineAndPath(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"a misspelt field": {
			"web:\n  listenAdress: x\n",
			"line 2: web.listenAdress: unknown field; did you mean listenAddress?",
		},
		"an unknown section": {
			"log: {}\nnetwork: {}\n",
			"line 2: network: unknown field; there are web, telemetry, readiness, log",
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
		"a maximum age below the budget": {
			"telemetry:\n  budget: 2s\n  maxAge: 1s\n",
			"line 3: telemetry.maxAge: 1s: want the budget (2s) to 1h",
		},
		"a default that no longer fits": {
			"telemetry:\n  budget: 10s\n",
			"telemetry.callTimeout: 5s: want the budget (10s) to 10m",
		},
		"two mistakes at once": {
			"log:\n  level: loud\n  format: xml\n",
			"line 2: log.level: \"loud\": want one of [debug info warn error]\nline 3: log.format: \"xml\": want one of [auto text json]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(test.in), anyURI)
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
			got, err := Parse([]byte(in), anyURI)
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
	text, err := Print(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text, anyURI)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
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
			if field.Type.Kind() == reflect.Struct {
				walk(field.Type)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("web:\n  listenAddress: :9477\n"))
	f.Add([]byte("telemetry: {libvirtURIs: [qemu:///system], budget: 1s}\n---\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("0\n---"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := Parse(data, anyURI)
		if err != nil {
			return
		}
		if problems := Validate(config, anyURI); len(problems) > 0 {
			t.Errorf("accepted in spite of %v", problems)
		}
	})
}
