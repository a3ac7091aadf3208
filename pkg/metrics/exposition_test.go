package metrics

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
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
	next := uint64(1)
	num := func() qemu.Num {
		next = next*6364136223846793005 + 1442695040888963407
		return qemu.Some(next >> 14)
	}
	traffic := func() qemu.Traffic { return qemu.Traffic{Bytes: num(), Packets: num(), Errors: num(), Drops: num()} }
	io := func() qemu.IO { return qemu.IO{Requests: num(), Bytes: num(), Time: num()} }
	vm := qemu.VM{
		Namespace: "prod", Name: name, UUID: "6f1c1f2e-6b5a-4d0e-9a51-0a0b0c0d0e0f", Source: "qemu:///system", State: qemu.StateRunning,
		CPU:     qemu.CPU{Time: num(), User: num(), System: num(), HaltPollSuccess: num(), HaltPollFailure: num()},
		Current: qemu.Some(uint64(cpus)), Maximum: qemu.Some(8),
		Memory: qemu.Memory{
			Current: num(), Maximum: num(), Resident: num(), Available: num(), Unused: num(), Usable: num(), DiskCaches: num(), SwapIn: num(), SwapOut: num(),
			MajorFaults: num(), MinorFaults: num(), HugetlbAllocations: num(), HugetlbFails: num(), LastUpdate: qemu.Some(1_700_000_000),
		},
		Process: &qemu.Process{PID: 42, Start: time.Unix(1_700_000_000, 250_000_000), Resident: num(), CPU: [len(qemu.Roles)]qemu.Num{num(), num(), num(), num(), num()}},
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

func encode(vms ...qemu.VM) string {
	var w writer
	appendSnapshot(&w, &qemu.Snapshot{VMs: vms})
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
	golden(t, "testdata/vms.prom", encode(bare, wholeVM("web", 2, 1, 2)))
}

func TestWhatNobodyKnowsHasNoSeries(t *testing.T) {
	page := encode(qemu.VM{Name: "a", Source: "s"})
	want := "# HELP virtnode_vm_info " + infoFamilies[0].help + "\n# TYPE virtnode_vm_info gauge\n" +
		`virtnode_vm_info{namespace="",name="a",uuid="",source="s"} 1` + "\n"
	if diff := cmp.Diff(want, page); diff != "" {
		t.Error(diff)
	}
	if page := encode(); page != "" {
		t.Errorf("a host without machines: %q", page)
	}
}

// TestClientLibraryAgrees gives the same samples to client_golang.
func TestClientLibraryAgrees(t *testing.T) {
	vms := []qemu.VM{wholeVM(`quo"te\back`, 2, 2, 2), wholeVM("line\nfeed", 3, 1, 1), wholeVM("ünï", 1, 1, 1)}
	ours := parse(t, encode(vms...))
	registry := prometheus.NewRegistry()
	registry.MustRegister(constMetrics(vms))
	theirs, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := 0
	for _, family := range theirs {
		var text bytes.Buffer
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			t.Fatal(err)
		}
		want := parse(t, text.String())[family.GetName()]
		got := ours[family.GetName()]
		if got == nil || got.GetType() != want.GetType() || got.GetHelp() != want.GetHelp() || len(got.Metric) != len(want.Metric) {
			t.Errorf("%s: have %v, want %v", family.GetName(), got, want)
			continue
		}
		sortMetrics(got)
		sortMetrics(want)
		for i := range want.Metric {
			samples++
			if key(got.Metric[i]) != key(want.Metric[i]) || !near(value(got.Metric[i]), value(want.Metric[i])) {
				t.Errorf("%s: have %v, want %v", family.GetName(), got.Metric[i], want.Metric[i])
			}
		}
	}
	if samples < 100 {
		t.Errorf("only %d samples compared", samples)
	}
}

// constMetrics is how client_golang's users do it; it is the oracle, and the
// benchmark's other side. It covers one family of every shape.
type constMetrics []qemu.VM

func (constMetrics) Describe(chan<- *prometheus.Desc) {}

func (c constMetrics) Collect(out chan<- prometheus.Metric) {
	help := make(map[string]string)
	for _, group := range vmGroups {
		for i := range group.families {
			help[group.families[i].name] = group.families[i].help
		}
	}
	for i := range c {
		vm := &c[i]
		send := func(name string, kind prometheus.ValueType, n qemu.Num, scale float64, extra ...string) {
			if !n.Set {
				return
			}
			labels, values := []string{"namespace", "name", "uuid"}, []string{vm.Namespace, vm.Name, vm.UUID}
			if len(extra) > 0 {
				labels, values = append(labels, extra[0]), append(values, extra[1])
			}
			name = "virtnode_vm_" + name
			out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help[name], labels, nil), kind, float64(n.V)/scale, values...)
		}
		const count, level = prometheus.CounterValue, prometheus.GaugeValue
		send("state", level, qemu.Some(1), 1, "state", string(vm.State))
		send("cpu_seconds_total", count, vm.CPU.Time, 1e9)
		send("cpu_user_seconds_total", count, vm.CPU.User, 1e9)
		send("cpu_system_seconds_total", count, vm.CPU.System, 1e9)
		send("vcpus", level, vm.Current, 1)
		send("memory_current_bytes", level, vm.Memory.Current, 1)
		send("memory_usable_bytes", level, vm.Memory.Usable, 1)
		send("memory_last_update_timestamp_seconds", level, vm.Memory.LastUpdate, 1)
		for _, cpu := range vm.VCPUs {
			index := strconv.FormatUint(uint64(cpu.Index), 10)
			send("vcpu_seconds_total", count, cpu.Time, 1e9, "vcpu", index)
			send("vcpu_wait_seconds_total", count, cpu.Wait, 1e9, "vcpu", index)
			send("vcpu_delay_seconds_total", count, cpu.Delay, 1e9, "vcpu", index)
			send("vcpu_halted", level, cpu.Halted, 1, "vcpu", index)
		}
		for _, nic := range vm.Interfaces {
			for direction, traffic := range map[string]qemu.Traffic{"receive": nic.Receive, "transmit": nic.Transmit} {
				send("network_"+direction+"_bytes_total", count, traffic.Bytes, 1, "interface", nic.Name)
				send("network_"+direction+"_packets_total", count, traffic.Packets, 1, "interface", nic.Name)
				send("network_"+direction+"_errors_total", count, traffic.Errors, 1, "interface", nic.Name)
				send("network_"+direction+"_drops_total", count, traffic.Drops, 1, "interface", nic.Name)
			}
		}
		for _, disk := range vm.Blocks {
			for request, io := range map[string]qemu.IO{"read": disk.Read, "write": disk.Write, "flush": disk.Flush} {
				send("block_"+request+"_requests_total", count, io.Requests, 1, "device", disk.Device)
				send("block_"+request+"_bytes_total", count, io.Bytes, 1, "device", disk.Device)
				send("block_"+request+"_seconds_total", count, io.Time, 1e9, "device", disk.Device)
			}
			send("block_capacity_bytes", level, disk.Capacity, 1, "device", disk.Device)
			send("block_allocation_bytes", level, disk.Allocation, 1, "device", disk.Device)
			send("block_physical_bytes", level, disk.Physical, 1, "device", disk.Device)
		}
		for role, used := range vm.Process.CPU {
			send("thread_cpu_seconds_total", count, used, 100, "role", qemu.Roles[role])
		}
		send("process_resident_memory_bytes", level, vm.Process.Resident, 1)
	}
}

func sortMetrics(f *dto.MetricFamily) {
	slices.SortFunc(f.Metric, func(a, b *dto.Metric) int { return strings.Compare(key(a), key(b)) })
}

func key(m *dto.Metric) string {
	pairs := slices.Clone(m.Label)
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return fmt.Sprint(pairs)
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

// near allows for the division that only client_golang makes in floating point.
func near(a, b float64) bool {
	return a == b || math.Nextafter(a, b) == b
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

// fleet is 200 machines of 100 series each.
func fleet() []qemu.VM {
	vms := make([]qemu.VM, 200)
	for i := range vms {
		vms[i] = wholeVM(fmt.Sprintf("web-%03d", i), 6, 2, 2)
	}
	return vms
}

func BenchmarkEncode(b *testing.B) {
	snapshot := &qemu.Snapshot{VMs: fleet()}
	var w writer
	b.ReportAllocs()
	for b.Loop() {
		w.reset()
		appendSnapshot(&w, snapshot)
	}
	b.ReportMetric(float64(w.series), "series")
	b.ReportMetric(float64(len(w.buf)), "bytes")
}

func BenchmarkEncodeConstMetric(b *testing.B) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(constMetrics(fleet()))
	series := 0
	var page bytes.Buffer
	b.ReportAllocs()
	for b.Loop() {
		page.Reset()
		families, err := registry.Gather()
		if err != nil {
			b.Fatal(err)
		}
		series = 0
		for _, family := range families {
			series += len(family.Metric)
			if _, err := expfmt.MetricFamilyToText(&page, family); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(float64(page.Len()), "bytes")
}
