package metrics

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// fleet is machines of about 100 series each.
func fleet(count int) []qemu.VM {
	vms := make([]qemu.VM, count)
	for i := range vms {
		vms[i] = seededVM(uint64(i)<<32, fmt.Sprintf("web-%03d", i), 6, 2, 2)
		vms[i].UUID = fmt.Sprintf("%016x-%016x", sha256.Sum256([]byte(vms[i].Name)), i)[:36]
	}
	return vms
}

// BenchmarkEncode is 200 machines, some 20,000 series, beside client_golang.
func BenchmarkEncode(b *testing.B) {
	for name, format := range map[string]expfmt.Format{"text": expfmt.FmtText, "protobuf": expfmt.FmtProtoDelim} {
		b.Run("ours/"+name, func(b *testing.B) { benchmarkEncode(b, format, 200) })
		b.Run("client_golang/"+name, func(b *testing.B) { benchmarkLibrary(b, format) })
	}
}

// BenchmarkEncodeGrowth shows that a page costs by the machine what it costs.
func BenchmarkEncodeGrowth(b *testing.B) {
	for _, count := range []int{10, 100, 200, 500, 1000, 2000} {
		b.Run(fmt.Sprintf("vms=%d", count), func(b *testing.B) { benchmarkEncode(b, expfmt.FmtText, count) })
	}
}

func benchmarkEncode(b *testing.B, format expfmt.Format, count int) {
	snapshot := &qemu.Snapshot{VMs: fleet(count)}
	var w writer
	protobuf := format.FormatType() == expfmt.TypeProtoDelim
	w.reset(protobuf)
	chosen := Selection{}.compile()
	appendSnapshot(&w, snapshot, chosen) // the memory is there from then on
	b.ReportAllocs()
	for b.Loop() {
		w.reset(protobuf)
		appendSnapshot(&w, snapshot, chosen)
	}
	b.ReportMetric(float64(w.series), "series")
	b.ReportMetric(float64(len(w.buf)), "bytes")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(count), "µs/vm")
}

func benchmarkLibrary(b *testing.B, format expfmt.Format) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(constMetrics(fleet(200)))
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
		encoder := expfmt.NewEncoder(&page, format)
		for _, family := range families {
			series += len(family.Metric)
			if err := encoder.Encode(family); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(series), "series")
	b.ReportMetric(float64(page.Len()), "bytes")
}

// BenchmarkCompress is the page of 200 machines, as it is sent and as the
// standard library would.
func BenchmarkCompress(b *testing.B) {
	var zips compressors
	zips.init()
	standard, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		b.Fatal(err)
	}
	for format, protobuf := range map[string]bool{"text": false, "protobuf": true} {
		var w writer
		w.reset(protobuf)
		appendSnapshot(&w, &qemu.Snapshot{VMs: fleet(200)}, Selection{}.compile())
		for name, zip := range map[string]compressor{
			"gzip": zips.of("gzip").Get().(compressor), "zstd": zips.of("zstd").Get().(compressor), "gzip of the standard library": standard,
		} {
			b.Run(format+"/"+name, func(b *testing.B) {
				var out bytes.Buffer
				b.ReportAllocs()
				for b.Loop() {
					out.Reset()
					zip.Reset(&out)
					if _, err := zip.Write(w.buf); err != nil {
						b.Fatal(err)
					}
					if err := zip.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(out.Len()), "bytes")
				b.ReportMetric(float64(len(w.buf))/float64(out.Len()), "ratio")
			})
		}
	}
}

// BenchmarkLabels is what labels of machines cost, written anew for each page.
func BenchmarkLabels(b *testing.B) {
	vms := fleet(200)
	var w writer
	b.ReportAllocs()
	for b.Loop() {
		labelAll(&w, vms, labelVM)
	}
}

// TestEncodingAllocatesNothing once the memory is there.
func TestEncodingAllocatesNothing(t *testing.T) {
	snapshot, chosen := &qemu.Snapshot{VMs: fleet(20)}, Selection{Limits: Limits{PerVM: 80, All: 1500}}.compile()
	for _, protobuf := range []bool{false, true} {
		var w writer
		encode := func() { w.reset(protobuf); appendSnapshot(&w, snapshot, chosen) }
		encode()
		if allocs := testing.AllocsPerRun(5, encode); allocs > 0 {
			t.Errorf("protobuf %v: %v allocations a page", protobuf, allocs)
		}
	}
}
