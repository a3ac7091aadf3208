package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
)

// row is one line of the table. met says whether
// its target is reached.
type row struct {
	what         string
	ours, theirs float64
	unit         string
	target       string
	met          func(ours, theirs float64) bool
}

// printTable writes both costs side by side, with the targets.
func printTable(out io.Writer, opt options, ours, theirs exporter.Cost) error {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	within := func(share float64) func(a, b float64) bool {
		return func(a, b float64) bool { return a <= b*share }
	}
	rows := []row{
		{what: "CPU time of the exporter", ours: ms(ours.Exporter), theirs: ms(theirs.Exporter), unit: "ms", target: "at most 1/20", met: within(1. / 20)},
		{what: "CPU time of the exporter in a turn without a scrape", ours: ms(ours.Idle), theirs: ms(theirs.Idle), unit: "ms"},
		{what: "latency, median", ours: ms(ours.Latency), theirs: ms(theirs.Latency), unit: "ms", target: "at most 1/20", met: within(1. / 20)},
		{what: "latency, slowest", ours: ms(ours.Slowest), theirs: ms(theirs.Slowest), unit: "ms"},
		{what: "CPU time of libvirtd", ours: ms(ours.Daemon), theirs: ms(theirs.Daemon), unit: "ms"},
		{what: "CPU time of all QEMUs", ours: ms(ours.QEMUs), theirs: ms(theirs.QEMUs), unit: "ms"},
		{what: "CPU time of libvirtd and QEMUs", ours: ms(ours.Daemon + ours.QEMUs), theirs: ms(theirs.Daemon + theirs.QEMUs), unit: "ms", target: "at most 1/2", met: within(1. / 2)},
		{what: "series per VM", ours: ours.SeriesPerVM, theirs: theirs.SeriesPerVM, target: "at least as many", met: func(a, b float64) bool { return a >= b }},
		{what: "resident memory", ours: mib(ours.Resident), theirs: mib(theirs.Resident), unit: "MiB", target: "at most 40 MiB", met: func(a, _ float64) bool { return a <= 40 }},
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d VMs (%d of them working), scraped %d times by each in turn, a turn being %v; per scrape:\n\n", opt.domains, opt.working, opt.rounds, opt.interval)
	text.WriteString("| | nodeagent | prometheus-libvirt-exporter | ours / theirs | target | |\n|---|--:|--:|--:|---|---|\n")
	for _, r := range rows {
		ratio, verdict := "–", ""
		if r.theirs > 0 && r.ours > 0 {
			ratio = fmt.Sprintf("1/%.3g", r.theirs/r.ours)
			if r.ours > r.theirs {
				ratio = fmt.Sprintf("%.3g", r.ours/r.theirs)
			}
		}
		if r.met != nil {
			verdict = map[bool]string{true: "met", false: "MISSED"}[r.met(r.ours, r.theirs)]
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s |\n", r.what, number(r.ours, r.unit), number(r.theirs, r.unit), ratio, r.target, verdict)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// number prints three digits of what was measured.
func number(v float64, unit string) string {
	digits := 0
	switch {
	case v < 10:
		digits = 2
	case v < 100:
		digits = 1
	}
	return strings.TrimSpace(fmt.Sprintf("%.*f %s", digits, v, unit))
}
