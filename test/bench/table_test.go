package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/exporter"
)

func TestPrintTable(t *testing.T) {
	var out strings.Builder
	ours := exporter.Cost{Latency: 10 * time.Millisecond, Slowest: 20 * time.Millisecond, Exporter: time.Millisecond, Idle: 2 * time.Millisecond, Daemon: 40 * time.Millisecond, QEMUs: 0, Resident: 41 << 20, SeriesPerVM: 100}
	theirs := exporter.Cost{Latency: 100 * time.Millisecond, Slowest: 110 * time.Millisecond, Exporter: 25 * time.Millisecond, Idle: time.Millisecond, Daemon: 50 * time.Millisecond, QEMUs: 50 * time.Millisecond, Resident: 20 << 20, SeriesPerVM: 21}
	if err := printTable(&out, options{domains: 3, working: 1, rounds: 4, interval: time.Second}, ours, theirs); err != nil {
		t.Fatal(err)
	}
	want := `3 VMs (1 of them working), scraped 4 times by each in turn, a turn being 1s; per scrape:

| | nodeagent | prometheus-libvirt-exporter | ours / theirs | target | |
|---|--:|--:|--:|---|---|
| CPU time of the exporter | 1.00 ms | 25.0 ms | 1/25 | at most 1/20 | met |
| CPU time of the exporter in a turn without a scrape | 2.00 ms | 1.00 ms | 2 |  |  |
| latency, median | 10.0 ms | 100 ms | 1/10 | at most 1/20 | MISSED |
| latency, slowest | 20.0 ms | 110 ms | 1/5.5 |  |  |
| CPU time of libvirtd | 40.0 ms | 50.0 ms | 1/1.25 |  |  |
| CPU time of all QEMUs | 0.00 ms | 50.0 ms | – |  |  |
| CPU time of libvirtd and QEMUs | 40.0 ms | 100 ms | 1/2.5 | at most 1/2 | met |
| series per VM | 100 | 21.0 | 4.76 | at least as many | met |
| resident memory | 41.0 MiB | 20.0 MiB | 2.05 | at most 40 MiB | MISSED |
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestPrintBenchmarks(t *testing.T) {
	const text = `goos: linux
pkg: github.com/virtnode/nodeagent/pkg/metrics
BenchmarkEncode-2         	     500	   2384123 ns/op	       2 B/op	       0 allocs/op	   20000 series
BenchmarkGrow/200_VMs-2   	 1000000	       812.5 ns/op
PASS
ok  	github.com/virtnode/nodeagent/pkg/metrics	3.2s
`
	var out strings.Builder
	if err := printBenchmarks(strings.NewReader(text), &out); err != nil {
		t.Fatal(err)
	}
	want := `
| benchmark | time | allocations | other |
|---|--:|--:|---|
| pkg/metrics Encode | 2.38 ms | 0 | 20000 series |
| pkg/metrics Grow/200_VMs | 812 ns |  |  |
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	for _, broken := range []string{"", text + "FAIL\tgithub.com/virtnode/nodeagent/pkg/qemu\t1s\n"} {
		if err := printBenchmarks(strings.NewReader(broken), new(strings.Builder)); err == nil {
			t.Errorf("no error for %q", broken)
		}
	}
}
