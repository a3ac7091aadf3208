package rule

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// server is the JSON of a host of which much is known.
const server = `{
  "host": {"arch": "amd64", "kernel": "6.12.0", "product": {"source": "/sys/class/dmi/id", "error": "/sys/class/dmi/id: permission denied"}},
  "cpu": {"info": {"value": {"vendor": "GenuineIntel", "cpus": 4, "extension": "vmx", "extended": 4}}},
  "kvm": {
    "modules": {"value": ["kvm", "kvm_intel"]},
    "nested": {"kvm_intel": {"value": true}, "kvm_odd": {"error": "/sys/module/kvm_odd/parameters/nested: input/output error"}},
    "proof": {"node": {"path": "/dev/kvm", "state": "opened"}, "apiVersion": 12, "step": "done", "exits": 2}
  },
  "devices": {"tun": {"path": "/dev/net/tun", "state": "opened"}, "vhostNet": {"path": "/dev/vhost-net", "error": "/dev/vhost-net: input/output error"}},
  "memory": {
    "hugepages": {"value": [{"sizeKiB": 2048, "total": {"value": 8}, "free": {"value": 3}, "surplus": {"value": 0}}]},
    "numa": {"error": "/sys/devices/system/node: input/output error"}
  },
  "sriov": {"pfs": {"value": [{"address": "0000:01:00.0", "totalVFs": 7, "numVFs": 2}]}}
}`

func facts(t testing.TB) kvmcheck.Facts {
	t.Helper()
	var facts kvmcheck.Facts
	if err := json.Unmarshal([]byte(server), &facts); err != nil {
		t.Fatal(err)
	}
	return facts
}

func TestRulesJudge(t *testing.T) {
	host := facts(t)
	for name, test := range map[string]struct {
		expression string
		status     kvmcheck.Status
		reason     kvmcheck.Reason
		message    string // a part of it
	}{
		"a fact that holds":                     {`facts.host.arch == "amd64"`, kvmcheck.Ready, "", "facts.host.arch"},
		"a fact that does not":                  {`facts.cpu.info.value.cpus >= 8`, kvmcheck.NotReady, "TooSmall", "too few"},
		"an element of a list":                  {`"kvm_intel" in facts.kvm.modules.value`, kvmcheck.Ready, "", ""},
		"a loop":                                {`facts.memory.hugepages.value.exists(p, p.sizeKiB == 2048 && p.free.value >= 3)`, kvmcheck.Ready, "", ""},
		"a map":                                 {`facts.kvm.nested["kvm_intel"].value`, kvmcheck.Ready, "", ""},
		"a named string type":                   {`facts.kvm.proof.step == "done" && facts.devices.tun.state == "opened"`, kvmcheck.Ready, "", ""},
		"a reading that failed":                 {`facts.host.product.value.name == "x"`, kvmcheck.Unknown, kvmcheck.ReadFailed, "/sys/class/dmi/id: permission denied"},
		"a reading that nobody made":            {`facts.iommu.groups.value.size() > 0`, kvmcheck.Unknown, kvmcheck.ReadFailed, "not known"},
		"has() of a reading that failed":        {`!has(facts.host.product.value) || facts.host.product.value.name == "x"`, kvmcheck.Unknown, kvmcheck.ReadFailed, "permission denied"},
		"a map of readings, one of which fails": {`facts.kvm.nested.all(m, facts.kvm.nested[m].value)`, kvmcheck.Unknown, kvmcheck.ReadFailed, "kvm_odd"},
		"a device nobody could look at":         {`facts.devices.vhostNet.state == "absent"`, kvmcheck.Unknown, kvmcheck.ReadFailed, "/dev/vhost-net"},
		"what is unknown and does not matter":   {`facts.host.arch == "amd64" || facts.memory.numa.value.size() > 1`, kvmcheck.Ready, "", ""},
		"what is unknown and decided otherwise": {`facts.host.arch == "arm64" && facts.memory.numa.value.size() > 1`, kvmcheck.NotReady, "TooSmall", ""},
		"an optional field that is not there":   {`facts.sriov.pfs.value[0].numaNode == 0`, kvmcheck.Unknown, kvmcheck.RuleFailed, "numaNode is not there"},
		"a list that is really empty":           {`facts.sriov.pfs.value[0].vfs.size() == 0`, kvmcheck.Ready, "", ""},
		"has() of an optional field":            {`has(facts.sriov.pfs.value[0].numaNode)`, kvmcheck.NotReady, "TooSmall", ""},
		"an index beyond the end":               {`facts.sriov.pfs.value[1].totalVFs > 0`, kvmcheck.Unknown, kvmcheck.RuleFailed, "index out of bounds: 1"},
		"a key that is not there":               {`facts.kvm.nested["kvm_amd"].value`, kvmcheck.Unknown, kvmcheck.RuleFailed, "no such key: kvm_amd"},
		"a division by zero":                    {`1 / facts.memory.hugepages.value[0].surplus.value == 1`, kvmcheck.Unknown, kvmcheck.RuleFailed, "division by zero"},
		"facts that are compared":               {`facts.devices.tun == facts.devices.vhostNet`, kvmcheck.Unknown, kvmcheck.RuleFailed, "compare the fields"},
		"a name that is hidden from the check":  {`dyn(facts).kmv.proof == true`, kvmcheck.Unknown, kvmcheck.RuleFailed, "no field kmv"},
		"a value that is made":                  {`kvmcheck.Node{path: "/x"}.path == "/x"`, kvmcheck.Unknown, kvmcheck.RuleFailed, "cannot make"},
	} {
		t.Run(name, func(t *testing.T) {
			compiled, err := Compile(Source{Name: "own", Expression: test.expression, Reason: "TooSmall", Message: "too few", Remedy: "buy", Level: kvmcheck.Required})
			if err != nil {
				t.Fatal(err)
			}
			finding := compiled.Judge(host)
			if finding.Status != test.status || finding.Reason != test.reason || !strings.Contains(finding.Message, test.message) {
				t.Errorf("got %+v, want %s %s with %q", finding, test.status, test.reason, test.message)
			}
			if finding.Key() != "rule/own" || finding.Level != kvmcheck.Required || (finding.Status == kvmcheck.Ready) != (finding.Remedy == "") {
				t.Errorf("got %+v", finding)
			}
		})
	}
}

// TestAnEmptyListOutsideAReadingIsNotTrusted: it may be what was not read.
func TestAnEmptyListOutsideAReadingIsNotTrusted(t *testing.T) {
	for _, expression := range []string{`facts.kvm.nested.size() == 1`, `"kvm_intel" in facts.kvm.nested`, `has(facts.kvm.nested) && has(facts.kvm.nested.kvm_intel)`} {
		compiled, err := Compile(Source{Name: "own", Expression: expression})
		if err != nil {
			t.Fatal(err)
		}
		if finding := compiled.Judge(kvmcheck.Facts{}); finding.Status != kvmcheck.Unknown {
			t.Errorf("%s: %+v", expression, finding)
		}
	}
}

func TestMistakesAreFoundBeforeTheRun(t *testing.T) {
	for name, test := range map[string]struct{ expression, want string }{
		"a misspelt fact":      {`facts.kmv.proof.step == "done"`, "line 1, column 6: undefined field 'kmv'; there are cgroup, "},
		"an unknown name":      {"true &&\n  fact.cpu", "line 2, column 3: undeclared reference to 'fact'"},
		"no verdict":           {`facts.cpu.info.value.cpus`, "it gives int: want bool"},
		"a comparison of two":  {`facts.cpu.info.value.cpus == "4"`, "line 1, column 27: found no matching overload for '_==_'"},
		"how a fact was read":  {`facts.cpu.info.error == ""`, "line 1, column 15: undefined field 'error'; there are value"},
		"broken CEL":           {`facts.cpu.(`, "line 1, column 11: Syntax error: "},
		"nothing":              {``, "it is empty"},
		"a bad pattern":        {`facts.host.kernel.matches("(")`, "line 1, column 27: invalid matches argument"},
		"a very long one":      {strings.Repeat("true || ", 600) + "true", "expression code point size exceeds limit"},
		"a very deep one":      {strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500), "recursion limit"},
		"loops in loops":       {`[1].all(a, [1].all(b, [1].all(c, [1].all(d, [1].all(e, true)))))`, "line 1, column "},
		"a verdict by chance":  {`dyn(facts.host.arch)`, "it gives dyn: want bool"},
		"a type of protobuf's": {`google.protobuf.Struct{}.x`, "it gives"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(Source{Name: "own", Expression: test.expression})
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestNoRuleRunsForLong(t *testing.T) {
	ten := "[1,2,3,4,5,6,7,8,9,10]"
	hundred := ten + ".map(x, " + ten + ").all(y, y.all(z, %))"
	for name, expression := range map[string]string{
		"loops in loops":  strings.Replace(hundred, "%", "("+strings.Join([]string{ten, ten, ten, ten, ten, ten}, "+")+").all(q, ("+strings.Join([]string{ten, ten, ten, ten, ten, ten}, "+")+").exists_one(r, r*q < 0) || true)", 1),
		"a growing text":  `[1,2,3,4,5,6,7,8].map(i, "` + strings.Repeat("a", 1000) + `").all(x, [x+x+x+x].all(x, [x+x+x+x+x+x+x+x].all(x, [x+x+x+x+x+x+x+x+x].all(x, (x+x+x+x+x+x+x+x).size() > 0))))`,
		"a hard pattern":  `"` + strings.Repeat("a", 2000) + `".matches("(a*)*(a*)*(a*)*(a*)*(a*)*b") || true`,
		"a pattern again": `[1,2,3,4,5,6,7,8,9].all(x, ` + ten + `.all(y, ` + ten + `.all(z, "` + strings.Repeat("a", 1000) + `".matches("(a|b|c|d)*x") || true)))`,
	} {
		t.Run(name, func(t *testing.T) {
			compiled, err := Compile(Source{Name: "own", Expression: expression})
			if err != nil {
				t.Fatal(err)
			}
			if finding := compiled.Judge(facts(t)); finding.Status == kvmcheck.NotReady {
				t.Errorf("got %+v", finding)
			} else {
				t.Log(finding.Status, finding.Message)
			}
		})
	}
}

// TestFactsSayThatTheyAreUndecided keeps rules from taking for a "no" what was
// not read: a struct with an error in it says of itself whether it is known.
func TestFactsSayThatTheyAreUndecided(t *testing.T) {
	schema := newSchema()
	if len(schema.structs) < 20 {
		t.Fatalf("only %d structs: the walk is broken", len(schema.structs))
	}
	for name, known := range schema.structs {
		if _, found := known.fields["error"]; found {
			t.Errorf("%s has a field error, and does not implement kvmcheck.Fact", name)
		}
		if len(known.fields) == 0 {
			t.Errorf("%s has no field that a rule can ask", name)
		}
	}
	if known := schema.structs[reflect.TypeFor[kvmcheck.Reading[int]]().String()]; len(known.names) != 1 || known.names[0] != "value" {
		t.Errorf("a reading has %v, want value", known.names)
	}
}

func FuzzCompile(f *testing.F) {
	for _, expression := range []string{
		`facts.host.arch == "amd64" && facts.cpu.info.value.cpus >= 4`,
		`facts.sriov.pfs.value.filter(p, has(p.numaNode)).map(p, p.totalVFs - p.numVFs).exists(n, n > 2)`,
		`facts.kvm.nested["kvm_intel"].value ? facts.host.kernel.matches("^6[.]") : dyn(facts).memory`,
		`type(facts.kvm) == type(1) || {"a": [1u, 2u]}["a"][0] in [1, 2.0]`,
		`kvmcheck.Node{path: "/x"}.path.startsWith("/") && facts.memory == facts.memory`,
	} {
		f.Add(expression)
	}
	var host kvmcheck.Facts
	if err := json.Unmarshal([]byte(server), &host); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		compiled, err := Compile(Source{Name: "own", Expression: expression, Reason: "Own"})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("several lines: %v", err)
			}
			return
		}
		finding := compiled.Judge(host)
		if again := compiled.Judge(host); again.Status != finding.Status {
			t.Errorf("%s, then %s", finding.Status, again.Status)
		}
		if unknown := compiled.Judge(kvmcheck.Facts{}); unknown.Status == kvmcheck.NotReady && strings.Contains(expression, "value") && !strings.ContainsAny(expression, "|&?{[") && !strings.Contains(expression, "(") {
			t.Errorf("%q is NotReady without any fact: %+v", expression, unknown)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(Source{Expression: `facts.cpu.info.value.cpus >= 4`}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	compiled, err := Compile(Source{Expression: `facts.memory.hugepages.value.exists(p, p.sizeKiB == 2048 && p.free.value >= 3)`})
	if err != nil {
		b.Fatal(err)
	}
	host := facts(b)
	for b.Loop() {
		compiled.Judge(host)
	}
}
