package metrics

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

var update = flag.Bool("update", false, "write the golden files and docs/metrics.md")

// golden compares got with a file, or writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is out of date; run go test ./pkg/metrics -update (-file +now):\n%s", file, diff)
	}
}

// wholeVM has a value for every family.
func wholeVM(name string, cpus, nics, disks int) qemu.VM {
	return seededVM(1, name, cpus, nics, disks)
}

// seededVM has other numbers for another seed.
func seededVM(next uint64, name string, cpus, nics, disks int) qemu.VM {
	num := func() qemu.Num {
		next = next*6364136223846793005 + 1442695040888963407
		return qemu.Some(next >> 14)
	}
	traffic := func() qemu.Traffic { return qemu.Traffic{Bytes: num(), Packets: num(), Errors: num(), Drops: num()} }
	io := func() qemu.IO { return qemu.IO{Requests: num(), Bytes: num(), Time: num()} }
	vm := qemu.VM{
		Namespace: "prod", Name: name, UUID: "6f1c1f2e-6b5a-4d0e-9a51-0a0b0c0d0e0f", Source: "qemu:///system", State: qemu.StateRunning,
		Kind: qemu.KindLibvirt, Domain: name, Definition: &qemu.Definition{Machine: "pc-q35-10.0", OS: "http://debian.org/debian/12"}, Agent: qemu.Some(1),
		CPU:     qemu.CPU{Time: num(), User: num(), System: num(), HaltPollSuccess: num(), HaltPollFailure: num()},
		Current: qemu.Some(uint64(cpus)), Maximum: qemu.Some(8),
		Memory: qemu.Memory{
			Current: num(), Maximum: num(), Resident: num(), Available: num(), Unused: num(), Usable: num(), DiskCaches: num(), SwapIn: num(), SwapOut: num(),
			MajorFaults: num(), MinorFaults: num(), HugetlbAllocations: num(), HugetlbFails: num(), LastUpdate: qemu.Some(1_700_000_000),
		},
		Process: wholeProcess(num, cpus),
	}
	for i := range cpus {
		vm.VCPUs = append(vm.VCPUs, qemu.VCPU{Index: uint32(i), State: qemu.VCPURunning, Time: num(), Wait: num(), Delay: num(), Halted: qemu.Some(0)})
	}
	for i := range nics {
		vm.Interfaces = append(vm.Interfaces, qemu.Interface{Name: fmt.Sprintf("tap%d", i), Receive: traffic(), Transmit: traffic()})
	}
	for i := range disks {
		flush := io()
		flush.Bytes = qemu.Num{}
		vm.Blocks = append(vm.Blocks, qemu.Block{Device: fmt.Sprintf("vd%c", 'a'+i), Read: io(), Write: io(), Flush: flush, Capacity: num(), Allocation: num(), Physical: num()})
	}
	return vm
}

// everything is all groups.
func everything() Selection {
	selection := Selection{Groups: make(map[string]bool)}
	for _, g := range vmGroups {
		selection.Groups[g.name] = true
	}
	return selection
}

func encode(vms ...qemu.VM) string {
	var w writer
	appendSnapshot(&w, &qemu.Snapshot{VMs: vms}, everything().compile())
	return string(w.buf)
}

// parse reads a page as Prometheus' own library does.
func parse(t testing.TB, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("parse page: %v\n%s", err, page)
	}
	return families
}

func TestExposition(t *testing.T) {
	bare := qemu.VM{Name: "no \"libvirt\"\n\\ \xff here", Source: qemu.SourceProc, Process: &qemu.Process{PID: 1}}
	web := wholeVM("web", 2, 1, 2)
	web.Process.VFs = []qemu.VF{wholeVF("0000:65:02.0", 1), wholeVF("0000:65:02.1", 2)}
	golden(t, "testdata/vms.prom", encode(bare, web))
}

func TestWhatNobodyKnowsHasNoSeries(t *testing.T) {
	page := encode(qemu.VM{Name: "a", Source: "s"})
	want := "# HELP virtnode_vm_info " + infoFamilies[0].help + "\n# TYPE virtnode_vm_info gauge\n" +
		`virtnode_vm_info{namespace="",name="a",uuid="",source="s",kind="",domain="",pod="",pod_uid="",machine="",flavor="",os=""} 1` + "\n"
	if diff := cmp.Diff(want, page); diff != "" {
		t.Error(diff)
	}
	if page := encode(); page != "" {
		t.Errorf("a host without machines: %q", page)
	}
}

func TestAppendDecimal(t *testing.T) {
	for _, tc := range []struct {
		v      uint64
		places int
		want   string
	}{
		{0, 9, "0"},
		{1, 9, "0.000000001"},
		{1_500_000_000, 9, "1.5"},
		{2_000_000_000, 9, "2"},
		{math.MaxUint64, 9, "18446744073.709551615"},
		{1, 2, "0.01"},
		{10, 2, "0.1"},
		{1234, 2, "12.34"},
		{700, 2, "7"},
	} {
		if got := string(appendDecimal(nil, tc.v, tc.places)); got != tc.want {
			t.Errorf("%d / 10^%d: %s, want %s", tc.v, tc.places, got, tc.want)
		}
	}
}

func FuzzLabelValue(f *testing.F) {
	for _, seed := range []string{"web", `a"b`, `\n`, "\n", "\xff\xfe", "�", "日本", "\x00", `\\"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		families := parse(t, encode(qemu.VM{Name: text, Source: text}))
		labels := families["virtnode_vm_info"].Metric[0].Label
		want := string([]rune(text)) // what is not UTF-8 becomes U+FFFD
		if labels[1].GetValue() != want || labels[3].GetValue() != want {
			t.Errorf("have %q and %q, want %q", labels[1].GetValue(), labels[3].GetValue(), want)
		}
	})
}

func TestFamiliesFollowTheRules(t *testing.T) {
	seen := make(map[string]bool)
	check := func(name string, kind kind, class, help string) {
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if !model.LegacyValidation.IsValidMetricName(name) || !strings.HasPrefix(name, "virtnode_") || class == "" ||
			strings.HasSuffix(name, "_total") != (kind == counter) || !strings.HasSuffix(help, ".") || strings.ContainsAny(help, "\\\n|") {
			t.Errorf("%s: %s, %s, %q", name, kind, class, help)
		}
	}
	for _, group := range vmGroups {
		for _, f := range group.families {
			check(f.name, f.kind, f.class, f.help)
		}
	}
	for i := range sourceFamilies {
		check(sourceFamilies[i].name, sourceFamilies[i].kind, sourceFamilies[i].class, sourceFamilies[i].help)
	}
	for i := range taskFamilies {
		check(taskFamilies[i].name, taskFamilies[i].kind, taskFamilies[i].class, taskFamilies[i].help)
	}
}

func TestReferenceIsUpToDate(t *testing.T) {
	golden(t, "../../docs/metrics.md", Reference())
}
