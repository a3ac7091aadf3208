package metrics

import (
	"math"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// TestProcessIsAsClientGolangTellsIt puts both collectors beside each other.
func TestProcessIsAsClientGolangTellsIt(t *testing.T) {
	ours := gather(t, newOwnProcess())
	theirs := gather(t, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	near := map[string]float64{ // what goes on meanwhile
		"process_cpu_seconds_total": 1, "process_open_fds": 8,
		"process_resident_memory_bytes": 64 << 20, "process_virtual_memory_bytes": 1 << 30,
	}
	for name, want := range theirs {
		got := ours[name]
		if name == "process_network_receive_bytes_total" || name == "process_network_transmit_bytes_total" {
			if got != nil {
				t.Errorf("%s is the namespace's", name)
			}
			continue
		}
		if got == nil || got.GetHelp() != want.GetHelp() || got.GetType() != want.GetType() {
			t.Errorf("have %v, want %v", got, want)
			continue
		}
		if have, want := value(got.GetMetric()[0]), value(want.GetMetric()[0]); math.Abs(have-want) > near[name] || have == 0 {
			t.Errorf("%s is %v, want %v", name, have, want)
		}
	}
	if len(ours) != 7 {
		t.Errorf("%d families: %v", len(ours), ours)
	}
}

func gather(t *testing.T, collector prometheus.Collector) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily)
	for _, family := range families {
		byName[family.GetName()] = family
	}
	return byName
}

func BenchmarkProcess(b *testing.B) {
	for name, collector := range map[string]prometheus.Collector{
		"ours": newOwnProcess(), "client_golang": collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		b.Run(name, func(b *testing.B) {
			metrics := make(chan prometheus.Metric, 16)
			b.ReportAllocs()
			for b.Loop() {
				collector.Collect(metrics)
				for len(metrics) > 0 {
					<-metrics
				}
			}
		})
	}
}
