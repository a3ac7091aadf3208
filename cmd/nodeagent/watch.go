package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// The control sequences that redraw a terminal from its top (ECMA-48 CUP, ED).
const (
	toTop     = "\x1b[H"
	clearDown = "\x1b[J"
	clearAll  = "\x1b[2J"
)

// watcher shows a report again and again: whole on a terminal, and elsewhere
// what has changed.
type watcher struct {
	out      io.Writer
	output   string // table, json, yaml
	terminal bool
	interval time.Duration
	last     *nodestack.Report
}

// watch checks until ctx ends, and returns the last report.
func (w *watcher) watch(ctx context.Context, check func(context.Context) nodestack.Report) (nodestack.Report, error) {
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	for {
		report := check(ctx)
		if ctx.Err() != nil && w.last != nil {
			return *w.last, nil // this one was cut short
		}
		if err := w.show(report); err != nil {
			return report, err
		}
		w.last = &report
		select {
		case <-ctx.Done():
			return report, nil
		case <-tick.C:
		}
	}
}

func (w *watcher) show(report nodestack.Report) error {
	changed := report.Findings
	if w.last != nil {
		changed = changes(w.last.Findings, report.Findings)
	}
	switch {
	case w.terminal:
		return w.redraw(report)
	case w.output != "table":
		return w.append(report, len(changed) > 0)
	case w.last == nil:
		return writeReport(w.out, w.output, report)
	}
	for _, finding := range changed {
		line := fmt.Sprintf("%s %s %s", report.Time.Format(time.RFC3339), finding.Key(), finding.Status)
		if finding.Reason != "" {
			line += " " + string(finding.Reason)
		}
		if _, err := fmt.Fprintf(w.out, "%s: %s\n", line, kvmcheck.Printable(finding.Message)); err != nil {
			return err
		}
	}
	return nil
}

// append writes one more JSON value or YAML document.
func (w *watcher) append(report nodestack.Report, changed bool) error {
	if w.last != nil && !changed {
		return nil
	}
	if w.last != nil && w.output == "yaml" {
		if _, err := io.WriteString(w.out, "---\n"); err != nil {
			return err
		}
	}
	return writeReport(w.out, w.output, report)
}

func (w *watcher) redraw(report nodestack.Report) error {
	start := toTop + clearDown
	if w.last == nil {
		start = clearAll + toTop
	}
	if _, err := io.WriteString(w.out, start); err != nil {
		return err
	}
	if err := writeReport(w.out, w.output, report); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w.out, "\n%s, every %v; Ctrl-C ends\n", report.Time.Local().Format(time.DateTime), w.interval)
	return err
}

// changes lists the findings that are not as they were, and as Unknown those
// that are no longer there.
func changes(before, after []kvmcheck.Finding) []kvmcheck.Finding {
	was := make(map[string]kvmcheck.Finding, len(before))
	for _, finding := range before {
		was[finding.Key()] = finding
	}
	var changed []kvmcheck.Finding
	for _, finding := range after {
		if was[finding.Key()] != finding {
			changed = append(changed, finding)
		}
		delete(was, finding.Key())
	}
	for _, finding := range before {
		if _, gone := was[finding.Key()]; gone {
			changed = append(changed, kvmcheck.Finding{Area: finding.Area, Check: finding.Check, Message: "no longer there"})
		}
	}
	return changed
}
