package main

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/virtnode/nodeagent/internal/agent"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/readiness"
	"github.com/virtnode/nodeagent/internal/uevent"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// newLoop returns the loop that checks the host, for the kind of node that it
// is at the time.
func (d *daemon) newLoop() (*readiness.Loop, error) {
	host, err := kvmcheck.Open(d.root)
	if err != nil {
		return nil, err
	}
	probe, err := newProbe(d.root, func() kvmcheck.Profile { return *d.profile.Load() })
	if err != nil {
		return nil, err
	}
	return readiness.New(readiness.Options{
		Probe: func(ctx context.Context) nodestack.Report {
			report := probe(ctx)
			d.judgeNetwork(&report)
			return report
		},
		Hugepages: func(ctx context.Context) string { return kvmcheck.HugepageState(ctx, host) },
		Listen:    func() (readiness.Events, error) { return uevent.Listen() },
		Observed:  d.publishLook,
		Random:    rand.Float64,
		Log:       d.log,
	}), nil
}

// startReadiness checks the host now, at every interval and on events, and
// judges it by a profile.
func (d *daemon) startReadiness(c config.Config, profile kvmcheck.Profile) {
	d.profile.Store(&profile)
	d.tasks.Start(agent.Task{Name: "readiness", Run: func(ctx context.Context, ready func()) error {
		return d.loop.Run(ctx, c.Readiness.Interval, ready)
	}})
}

func (d *daemon) lastReport() (any, error) {
	state, probed := d.loop.State()
	if !probed {
		return nil, errors.New("the first check is running")
	}
	if w := d.watch.Load(); w != nil {
		return networkReport{state.Report, w.Status()}, nil
	}
	return state.Report, nil
}

// networkReport is the report of a host whose network is watched over.
type networkReport struct {
	nodestack.Report
	Network network.Status `json:"network"`
}

// readinessState is what metrics tell of the last report and the durable verdicts.
func (d *daemon) readinessState() *metrics.Readiness {
	state, probed := d.loop.State()
	if !probed {
		return nil
	}
	told := &metrics.Readiness{
		Durable:  string(state.Steady.Verdict()),
		Events:   state.Events,
		Duration: state.Duration,
		Last:     state.Report.Time,
		Hung:     len(d.root.Hung()),
	}
	for _, trigger := range readiness.Triggers() {
		told.Probes = append(told.Probes, metrics.ProbeCount{Trigger: string(trigger), Count: state.Probes[trigger]})
	}
	now := make(map[string]kvmcheck.Finding, len(state.Report.Findings))
	for _, finding := range state.Report.Findings {
		now[finding.Key()] = finding
	}
	for _, check := range state.Steady.Checks() {
		told.Checks = append(told.Checks, checkState(check, now))
	}
	return told
}

func checkState(check kvmcheck.Durable, now map[string]kvmcheck.Finding) metrics.CheckState {
	state := metrics.CheckState{
		Area: check.Area, Check: check.Check, Level: string(check.Level),
		Durable: string(check.Status), Transitions: check.Transitions,
	}
	if finding, found := now[check.Key()]; found {
		state.Status, state.Reason = finding.Status.String(), string(finding.Reason)
	}
	return state
}
