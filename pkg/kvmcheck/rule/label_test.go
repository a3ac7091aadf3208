package rule_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck/rule"
	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestLabels(t *testing.T) {
	facts := hosttest.Replay(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz"))
	for name, test := range map[string]struct {
		expression, want string
		known            bool
	}{
		"a text":             {`facts.cpu.info.value.vendor`, "AuthenticAMD", true},
		"a number":           {`facts.memory.numa.value.size()`, "2", true},
		"true":               {`facts.sriov.pfs.value.exists(p, p.totalVFs > 1)`, "true", true},
		"false":              {`facts.sriov.pfs.value.exists(p, p.totalVFs > 1000)`, "", true},
		"one of two":         {`facts.cpu.info.value.cpus > 64 ? "large" : "small"`, "small", true},
		"a division by zero": {`1 / (facts.cpu.info.value.cpus - facts.cpu.info.value.cpus)`, "", false},
		"what is not known":  {`facts.time.tscKHz.value`, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			label, err := rule.CompileLabel("own", test.expression)
			if err != nil {
				t.Fatal(err)
			}
			value, known, why := label.Value(facts)
			if value != test.want || known != test.known || known == (why != "") {
				t.Errorf("%q, known %v, %q", value, known, why)
			}
		})
	}
	if _, err := rule.CompileLabel("own", "[1]"); err == nil || !strings.Contains(err.Error(), "want string or int or bool") {
		t.Error(err)
	}
}
