package node

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

var update = flag.Bool("update", false, "write the expected labels of test/hosts")

// TestRecordedHosts compares the labels of each recorded machine, whole.
func TestRecordedHosts(t *testing.T) {
	var got strings.Builder
	hosts := hosttest.Hosts(t)
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		facts := hosttest.Replay(t, hosts[name])
		labels := Labels(Look{Report: kvmcheck.NewReport(facts, kvmcheck.Profile{}, "test", hosttest.Time())})
		fmt.Fprintf(&got, "%s\n", name)
		for _, label := range labels {
			switch {
			case !label.Known:
				fmt.Fprintf(&got, "  %s ?\n", label.Key)
			case label.Value != "":
				fmt.Fprintf(&got, "  %s=%s\n", label.Key, label.Value)
			}
		}
	}
	golden := filepath.Join("testdata", "labels.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("go test ./internal/node -run TestRecordedHosts -update writes what is right now (-want +got):\n%s", diff)
	}
}

// TestNothingReadIsNothingSaid holds that no label is known to be absent, or
// false, because nothing could be read.
func TestNothingReadIsNothingSaid(t *testing.T) {
	_, host := hosttest.OpenHost(t, t.TempDir())
	for _, label := range Labels(Look{Report: kvmcheck.NewReport(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{}, "test", hosttest.Time())}) {
		architecture := strings.HasSuffix(label.Key, "secure-execution") || strings.Contains(label.Key, "/tsc.")
		if label.Known && !architecture {
			t.Errorf("%s is %q", label.Key, label.Value)
		}
	}
}

func TestRowsAreWellFormed(t *testing.T) {
	checks := kvmcheck.Checks()
	seen := make(map[string]bool)
	for _, row := range rows() {
		if seen[row.name] || labelValue(row.name) != row.name {
			t.Errorf("%s: twice, or no name of a label", row.name)
		}
		seen[row.name] = true
		if strings.Contains(origin(row.from), "](") && !slices.ContainsFunc(checks, func(c kvmcheck.Check) bool { return c.Key() == row.from }) {
			t.Errorf("%s: no check %s", row.name, row.from)
		}
	}
}

func TestLabelValues(t *testing.T) {
	for value, want := range map[string]string{
		"GenuineIntel": "GenuineIntel", "IBM/S390": "IBM-S390", "(odd)": "odd", "": "", "\x00\xff": "", "é": "",
		strings.Repeat("x", 100): strings.Repeat("x", 63), strings.Repeat("x", 62) + "-y": strings.Repeat("x", 62),
	} {
		if got := labelValue(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// fixed is a label of one's own.
type fixed string

func (f fixed) Name() string { return string(f) }
func (f fixed) Value(kvmcheck.Facts) (value string, known bool, why string) {
	return "some-value", true, ""
}

// TestLabelsAreBounded cuts the least important first.
func TestLabelsAreBounded(t *testing.T) {
	look := lookAt(t, "vm-numa-sriov")
	reports := []v1alpha1.NetworkReport{{Policy: "p", State: "Converged"}}
	for i := range 10 {
		reports[0].Interfaces = append(reports[0].Interfaces, v1alpha1.InterfaceReport{Name: fmt.Sprintf("net%d", i), Ready: true})
		look.Custom = append(look.Custom, fixed(fmt.Sprintf("own%d", i)), fixed(fmt.Sprintf("%s%d", strings.Repeat("long", 30), i)))
	}
	all := truth{}.observe(look)
	all.network = all.network.observe(hosttest.Time(), reports, true)
	want := all.want()
	size := 0
	for key, value := range want.labels {
		size += len(key) + len(value)
	}
	if len(want.labels) != mostLabels || size > mostBytes || len(want.cut) == 0 {
		t.Errorf("%d labels of %d bytes, cut %v", len(want.labels), size, want.cut)
	}
	if want.labels["virtnode.io/kvm"] != yes || slices.ContainsFunc(want.cut, func(key string) bool { return rank(key) < len(rows()) }) {
		t.Errorf("cut %v", want.cut)
	}
}
