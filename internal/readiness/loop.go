package readiness

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/internal/uevent"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// Events is where the kernel's announcements come from.
type Events interface {
	// Receive waits for the next one; after Close it fails.
	Receive() (uevent.Event, error)
	Close() error
}

// Options says what a [Loop] uses.
type Options struct {
	// Probe checks the host. It ends in bounded time.
	Probe func(ctx context.Context) nodestack.Report
	// Hugepages returns a text that changes when the huge pages do.
	Hugepages func(ctx context.Context) string
	// Listen starts to receive events; an error means that there are none.
	Listen func() (Events, error)
	// Observed is told of every probe, one after the other; nil: nobody listens.
	Observed func(State)
	// Random returns numbers in [0,1).
	Random func() float64
	Log    *slog.Logger
}

// State is what a [Loop] knows. It is never changed after it was handed out.
type State struct {
	Report   nodestack.Report // of the last probe
	Steady   kvmcheck.Steady  // of all probes
	Probes   map[Trigger]uint64
	Duration time.Duration // of the last probe
	Events   bool          // whether events start a probe
}

// Loop checks a host again and again. Its state outlives a Run, so that a
// changed configuration does not start the hysteresis afresh.
type Loop struct {
	opt Options

	mu     sync.Mutex
	state  State
	deaf   bool // that there are no events has been said
	events bool
}

// New returns a loop that has probed nothing yet.
func New(opt Options) *Loop { return &Loop{opt: opt} }

// State returns what is known, and whether anything is.
func (l *Loop) State() (State, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.state
	state.Events = l.events
	return state, state.Probes != nil
}

// Run probes until ctx ends. It calls ready after the first probe. Only one
// Run may be going on at a time.
func (l *Loop) Run(ctx context.Context, interval time.Duration, ready func()) error {
	events := make(chan struct{}, 1)
	stop := l.listen(events)
	defer stop()
	trigger := Start
	if _, probed := l.State(); probed {
		trigger = Reload
	}
	for {
		pages := l.opt.Hugepages(ctx)
		l.probe(ctx, trigger)
		if ctx.Err() != nil {
			return nil
		}
		ready()
		if trigger = l.wait(ctx, interval, pages, events); ctx.Err() != nil {
			return nil
		}
	}
}

// probe checks the host once. A check that was cut short is thrown away.
func (l *Loop) probe(ctx context.Context, trigger Trigger) {
	begun := time.Now()
	report := l.opt.Probe(ctx)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	before := l.state
	next := State{
		Report:   report,
		Steady:   before.Steady.Observe(report.Time, report.Findings),
		Probes:   maps.Clone(before.Probes),
		Duration: time.Since(begun),
	}
	if next.Probes == nil {
		next.Probes = make(map[Trigger]uint64)
	}
	next.Probes[trigger]++
	l.state = next
	l.mu.Unlock()
	l.logChanges(before, next, trigger)
	if l.opt.Observed != nil {
		l.opt.Observed(next)
	}
}

// logChanges says what an operator would act on.
func (l *Loop) logChanges(before, after State, trigger Trigger) {
	if before.Probes == nil || before.Report.Verdict != after.Report.Verdict {
		l.opt.Log.Info("host checked", "verdict", after.Report.Verdict.String(), "reasons", after.Report.Reasons(), "trigger", string(trigger))
	}
	if old, now := before.Steady.Verdict(), after.Steady.Verdict(); old != now {
		l.opt.Log.Info("durable verdict changed", "from", old.String(), "to", now.String(), "reasons", after.Report.Reasons())
	}
}

// listen passes events on until stop is called.
func (l *Loop) listen(events chan<- struct{}) (stop func()) {
	source, err := l.opt.Listen()
	if err != nil {
		l.noEvents(err)
		return func() {}
	}
	l.mu.Lock()
	l.events = true
	l.mu.Unlock()
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			event, err := source.Receive()
			if err != nil {
				select {
				case <-stopping:
				default:
					l.noEvents(err)
				}
				return
			}
			if !matters(event) {
				continue
			}
			select {
			case events <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	return func() {
		close(stopping)
		_ = source.Close() // nothing was written
		<-stopped
	}
}

// noEvents falls back to the interval, and says so once.
func (l *Loop) noEvents(err error) {
	l.mu.Lock()
	said := l.deaf
	l.deaf, l.events = true, false
	l.mu.Unlock()
	if !said {
		l.opt.Log.Warn("no uevents: only the interval starts a check", "error", err)
	}
}
