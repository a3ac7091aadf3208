package metrics

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// encodeProtobuf returns a page about machines in the other format.
func encodeProtobuf(vms ...qemu.VM) []byte {
	var w writer
	w.reset(true)
	appendSnapshot(&w, &qemu.Snapshot{VMs: vms}, everything().compile())
	return w.buf
}

// decode reads a page of delimited messages, and demands of each that it is
// byte for byte what Go's protobuf library would write.
func decode(t testing.TB, page []byte) map[string]*dto.MetricFamily {
	t.Helper()
	families := make(map[string]*dto.MetricFamily)
	for reader := bytes.NewReader(page); reader.Len() > 0; {
		start := len(page) - reader.Len()
		family := new(dto.MetricFamily)
		if err := protodelim.UnmarshalFrom(reader, family); err != nil {
			t.Fatalf("decode page at %d: %v", start, err)
		}
		var again bytes.Buffer
		if _, err := (protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}).MarshalTo(&again, family); err != nil {
			t.Fatal(err)
		}
		if ours := page[start : len(page)-reader.Len()]; !bytes.Equal(ours, again.Bytes()) {
			t.Errorf("%s: have\n%x, the library writes\n%x", family.GetName(), ours, again.Bytes())
		}
		if families[family.GetName()] != nil {
			t.Errorf("%s is there twice", family.GetName())
		}
		families[family.GetName()] = family
	}
	return families
}

// TestClientLibraryAgrees gives the same samples to client_golang.
func TestClientLibraryAgrees(t *testing.T) {
	vms := []qemu.VM{wholeVM(`quo"te\back`, 2, 2, 2), wholeVM("line\nfeed", 3, 1, 1), wholeVM("ünï", 1, 1, 1)}
	inText, inProtobuf := parse(t, encode(vms...)), decode(t, encodeProtobuf(vms...))
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
		for format, got := range map[string]*dto.MetricFamily{"text": inText[family.GetName()], "protobuf": inProtobuf[family.GetName()]} {
			samples += compareFamily(t, format, got, want)
		}
	}
	if samples < 200 {
		t.Errorf("only %d samples compared", samples)
	}
}

// compareFamily returns how many samples it compared.
func compareFamily(t *testing.T, format string, got, want *dto.MetricFamily) int {
	t.Helper()
	if got == nil || got.GetType() != want.GetType() || got.GetHelp() != want.GetHelp() || len(got.Metric) != len(want.Metric) {
		t.Errorf("%s in %s: have %v, want %v", want.GetName(), format, got, want)
		return 0
	}
	sortMetrics(got)
	sortMetrics(want)
	for i := range want.Metric {
		if key(got.Metric[i]) != key(want.Metric[i]) || !near(value(got.Metric[i]), value(want.Metric[i])) {
			t.Errorf("%s in %s: have %v, want %v", want.GetName(), format, got.Metric[i], want.Metric[i])
		}
	}
	return len(want.Metric)
}

// hostile are texts that a guest's owner might choose.
func hostile() []string {
	return []string{"", "web", `quo"te`, `back\slash\`, "line\nfeed", "\xff\xfe", "\x00", "日本", strings.Repeat("x", 10_000), `",name="`, "\u2028", "\xed\xa0\x80", `\n`}
}

// randomVM has an arbitrary part of everything.
func randomVM(r *rand.Rand, names []string) qemu.VM {
	vm := wholeVM(names[r.IntN(len(names))], r.IntN(4), r.IntN(4), r.IntN(4))
	text := func() string { return names[r.IntN(len(names))] }
	num := func(n *qemu.Num) { *n = qemu.Num{V: r.Uint64() >> r.IntN(64), Set: r.IntN(4) > 0} }
	vm.Namespace, vm.UUID, vm.Source, vm.State = text(), text(), text(), qemu.State(text())
	for _, n := range []*qemu.Num{
		&vm.CPU.Time, &vm.CPU.User, &vm.CPU.System, &vm.Current, &vm.Memory.Current, &vm.Memory.Usable, &vm.Memory.LastUpdate, &vm.Process.Resident,
	} {
		num(n)
	}
	for i := range vm.VCPUs {
		vm.VCPUs[i].Index = r.Uint32() >> r.IntN(32)
		num(&vm.VCPUs[i].Time)
	}
	for i := range vm.Interfaces {
		vm.Interfaces[i].Name = text()
		num(&vm.Interfaces[i].Receive.Bytes)
	}
	for i := range vm.Blocks {
		vm.Blocks[i].Device = text()
		num(&vm.Blocks[i].Read.Time)
	}
	if r.IntN(4) == 0 {
		vm.Process = nil
	}
	return vm
}

// TestFormatsAgree takes random machines through both formats.
func TestFormatsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		var vms []qemu.VM
		for range r.IntN(4) {
			vms = append(vms, randomVM(r, hostile()))
		}
		compareFormats(t, vms)
	}
}

func FuzzFormatsAgree(f *testing.F) {
	for i, text := range hostile() {
		f.Add(text, uint64(i))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		compareFormats(t, []qemu.VM{randomVM(rand.New(rand.NewPCG(seed, 0)), []string{text, "web"})})
	})
}

// compareFormats demands the same of both formats, and of text that it is
// what client_golang would write.
func compareFormats(t *testing.T, vms []qemu.VM) {
	t.Helper()
	page := encode(vms...)
	inText, inProtobuf := parse(t, page), decode(t, encodeProtobuf(vms...))
	lines := make(map[string]bool)
	for line := range strings.Lines(page) {
		lines[beforeNumber(line)] = true
	}
	if len(inText) != len(inProtobuf) {
		t.Errorf("%d families in text, %d in protobuf", len(inText), len(inProtobuf))
	}
	for name, want := range inProtobuf {
		got := inText[name]
		if got == nil || got.GetType() != want.GetType() || got.GetHelp() != want.GetHelp() || len(got.Metric) != len(want.Metric) {
			t.Errorf("%s: have %v in text, %v in protobuf", name, got, want)
			continue
		}
		for i := range want.Metric { // in the same order
			if key(got.Metric[i]) != key(want.Metric[i]) || !near(value(got.Metric[i]), value(want.Metric[i])) {
				t.Errorf("%s: have %v in text, %v in protobuf", name, got.Metric[i], want.Metric[i])
			}
		}
		var library bytes.Buffer
		if _, err := expfmt.MetricFamilyToText(&library, got); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(library.String()) {
			if !lines[beforeNumber(line)] {
				t.Errorf("client_golang writes a line that we do not: %s", line)
			}
		}
	}
}

// beforeNumber cuts the number off a line of a page, which may be written in
// several ways.
func beforeNumber(line string) string { return line[:strings.LastIndexByte(line, ' ')] }

// histogramOf counts 0, 1, 2… in its buckets.
func histogramOf(first int) *qemu.Histogram {
	h := &qemu.Histogram{Set: true, Sum: 12_345_678_901}
	for i := first; i < len(h.Buckets); i++ {
		h.Buckets[i] = uint64(i - first)
	}
	return h
}

// testHistograms are rows over histograms, which VMs need not have.
func testHistograms() []family[qemu.Histogram] {
	return []family[qemu.Histogram]{
		{"virtnode_wait_seconds", histogram, nanoseconds, "", fromKernel, "Waits.", func(w *writer, h *qemu.Histogram) { w.putHistogram(h) }},
		{"virtnode_role_wait_seconds", histogram, nanoseconds, "role", fromKernel, "Waits.", func(w *writer, h *qemu.Histogram) { w.putHistogram(h, "role", "vcpu") }},
	}
}

// TestHistogramsAreTheLibrarys compares both formats with client_golang's.
func TestHistogramsAreTheLibrarys(t *testing.T) {
	for name, h := range map[string]*qemu.Histogram{
		"all buckets": histogramOf(0), "one bucket": histogramOf(len(qemu.Histogram{}.Buckets) - 2), "nothing yet": {Set: true}, "short ones": {Set: true, Buckets: [26]uint64{7}},
	} {
		t.Run(name, func(t *testing.T) {
			var inText, inProtobuf writer
			inProtobuf.reset(true)
			write(&inText, testHistograms(), []qemu.Histogram{*h, {}}, unlabelled[qemu.Histogram])
			write(&inProtobuf, testHistograms(), []qemu.Histogram{*h, {}}, unlabelled[qemu.Histogram])
			registry := prometheus.NewRegistry()
			registry.MustRegister(constHistograms{h, false})
			classic, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			var want strings.Builder
			for _, family := range slices.Backward(classic) {
				if _, err := expfmt.MetricFamilyToText(&want, family); err != nil {
					t.Fatal(err)
				}
			}
			sortLines := func(text string) string {
				lines := strings.Split(text, "\n")
				slices.Sort(lines)
				return strings.Join(lines, "\n")
			}
			if diff := cmp.Diff(sortLines(want.String()), sortLines(string(inText.buf))); diff != "" {
				t.Error(diff)
			}
			registry = prometheus.NewRegistry()
			registry.MustRegister(constHistograms{h, true})
			native, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			ours := decode(t, inProtobuf.buf)
			for i, family := range native {
				got, want := ours[family.GetName()].Metric[0].Histogram, family.Metric[0].Histogram
				want.Bucket = classic[i].Metric[0].Histogram.Bucket
				if diff := cmp.Diff(nativeOf(want), nativeOf(got)); diff != "" {
					t.Errorf("%s:\n%s", family.GetName(), diff)
				}
			}
			if inText.series != inProtobuf.series || inText.series != strings.Count(string(inText.buf), "\nvirtnode_") {
				t.Errorf("%d series in text, %d in protobuf:\n%s", inText.series, inProtobuf.series, inText.buf)
			}
		})
	}
}

// nativeOf is what a histogram says, however its spans are cut.
func nativeOf(h *dto.Histogram) map[string]float64 {
	said := map[string]float64{
		"count": float64(h.GetSampleCount()), "sum": h.GetSampleSum(), "schema": float64(h.GetSchema()),
		"zero": float64(h.GetZeroCount()), "threshold": h.GetZeroThreshold(),
	}
	for _, bucket := range h.Bucket {
		said["le "+strconv.FormatFloat(bucket.GetUpperBound(), 'g', -1, 64)] = float64(bucket.GetCumulativeCount())
	}
	index, count, next := int32(0), int64(0), 0
	for _, span := range h.PositiveSpan {
		index += span.GetOffset()
		for range span.GetLength() {
			if count += h.PositiveDelta[next]; count != 0 {
				said[fmt.Sprint("power ", index)] = float64(count)
			}
			index, next = index+1, next+1
		}
	}
	return said
}

// constHistograms gives client_golang a histogram, classic or native.
type constHistograms struct {
	of     *qemu.Histogram
	native bool
}

func (constHistograms) Describe(chan<- *prometheus.Desc) {}

func (c constHistograms) Collect(out chan<- prometheus.Metric) {
	classic, native, count := make(map[float64]uint64), make(map[int]int64), uint64(0)
	for i, n := range c.of.Buckets {
		count += n
		if power := qemu.FirstBucket + i; power >= -18 && power <= 2 && power%2 == 0 {
			classic[math.Pow(2, float64(power))] = count
		}
		if i > 0 && n > 0 {
			native[qemu.FirstBucket+i] = int64(n)
		}
	}
	sum := float64(c.of.Sum) / 1e9
	for _, desc := range []*prometheus.Desc{
		prometheus.NewDesc("virtnode_wait_seconds", "Waits.", nil, nil),
		prometheus.NewDesc("virtnode_role_wait_seconds", "Waits.", nil, prometheus.Labels{"role": "vcpu"}),
	} {
		if c.native {
			out <- prometheus.MustNewConstNativeHistogram(desc, count, sum, native, nil, c.of.Buckets[0], 0, math.Pow(2, qemu.FirstBucket), time.Time{})
		} else {
			out <- prometheus.MustNewConstHistogram(desc, count, sum, classic)
		}
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
		for role, used := range vm.Process.Threads {
			send("thread_cpu_seconds_total", count, used.CPU, 1e9, "role", qemu.Roles[role])
			send("thread_delay_seconds_total", count, used.Delay, 1e9, "role", qemu.Roles[role])
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
