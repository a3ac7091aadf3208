package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// reading is what one class of one source told at one time. Its memory is
// used again by a later reading of the same source.
type reading struct {
	vms    []VM              // each with the parts of the class only
	refs   []domainRef       // how libvirt calls each of them; empty for processes
	unused int               // fields that mean nothing to us
	names  map[string]string // statistics of KVM that are wanted
	slab   slab              // of the kernel class: where vms are
}

// domainRef is how libvirt's protocol names a domain.
type domainRef struct {
	name   string
	uuid   [16]byte
	number uint32 // inactive for a domain that is shut off; another with each start
}

// inactive is the number of a domain that does not run.
const inactive = ^uint32(0)

// source is what can be read with one call: /proc, or the light class of a
// daemon. At most one reading is in flight; one that ends late is there for
// the next scrape.
type source struct {
	name  string
	class Class
	read  func(context.Context, *reading) error
	after func(*reading, error) // called with what a reading told, or why it failed
	close func()                // gives back what read keeps between calls
	now   func() time.Time
	log   *slog.Logger
	limit time.Duration // for one reading
	wait  time.Duration // for one reading, by all collections together

	mu        *sync.Mutex   // of the collector, for all that follows
	flight    chan struct{} // closed when the reading in flight ends; nil when none is
	begun     time.Time     // when it began
	closed    bool
	last      reading
	spare     reading   // the reading in flight's, and nobody else's
	success   time.Time // when last was read; zero when there is none
	state     SourceState
	timeouts  int // in a row
	notBefore time.Time
}

func newSource(name string, class Class, c *Collector) *source {
	return &source{
		name: name, class: class, now: c.opt.Now, log: c.opt.Log, limit: c.opt.CallTimeout, wait: c.opt.Budget,
		after: func(*reading, error) {}, close: func() {}, mu: &c.data,
		state: SourceState{Source: name, Class: class, Reason: Pending},
	}
}

// newProcSource reads the kernel class.
func newProcSource(c *Collector) *source {
	s := newSource(SourceProc, Kernel, c)
	scan := newScanner(c.opt)
	s.read = func(ctx context.Context, r *reading) (err error) {
		*r, err = scan.read(ctx, r.slab)
		return err
	}
	s.close = scan.close
	return s
}

// newLightSource reads what a daemon tells of all its domains without asking
// a QEMU, over a connection of its own.
func newLightSource(d *daemon, c *Collector) *source {
	s := newSource(d.target.name, Light, c)
	l := &line{daemon: d}
	bits := libvirt.DomainStatsState | bitsOf(Light, c.opt.Groups)
	s.close = l.close
	s.read = func(ctx context.Context, r *reading) error {
		deadline, _ := ctx.Deadline()
		payload, err := l.stats(bits, nil, deadline)
		if err != nil {
			return err
		}
		err = r.decode(payload, d.target.name)
		r.vms = r.vms[:min(len(r.vms), d.target.domains())]
		r.refs = r.refs[:len(r.vms)]
		return err
	}
	return s
}

// start begins a reading, unless one is in flight or the source is in
// quarantine, and returns a channel that is closed when it has ended. A nil
// channel means that there is nothing to wait for, or that the reading is late
// already. run starts a goroutine, or reports that it cannot any more.
func (s *source) start(ctx context.Context, run func(func()) bool) <-chan struct{} {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flight != nil && now.Sub(s.begun) >= s.wait:
		return nil
	case s.flight != nil:
		return s.flight
	case s.closed || now.Before(s.notBefore):
		return nil
	}
	flight := make(chan struct{})
	if !run(func() { s.round(ctx, flight) }) {
		return nil
	}
	s.flight, s.begun = flight, now
	return flight
}

// round makes one reading and stores it.
func (s *source) round(ctx context.Context, flight chan struct{}) {
	limited, cancel := context.WithTimeout(ctx, s.limit)
	err := s.read(limited, &s.spare)
	cancel()

	s.mu.Lock()
	ended := ctx.Err() != nil
	if !ended {
		s.store(err)
	}
	s.mu.Unlock()
	if !ended {
		s.after(&s.last, err) // only the next round will change last
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight = nil
	if s.closed {
		s.close()
	}
	close(flight)
}

// store takes over the result of a reading.
func (s *source) store(err error) {
	now := s.now()
	before := s.state.Reason
	s.state.Reason, s.state.Message = reasonOf(err), ""
	switch {
	case err == nil:
		s.last, s.spare = s.spare, s.last
		s.success, s.timeouts = now, 0
		s.state.LastSuccess, s.state.Unused = now, s.last.unused
	case s.state.Reason == CallTimeout:
		// What was read before may be served while it is young.
		s.state.Message = err.Error()
		s.state.Abandoned++
		s.timeouts++
		s.notBefore = now.Add(quarantine(s.timeouts, s.limit))
	default:
		s.state.Message = err.Error()
		s.success, s.timeouts = time.Time{}, 0
	}
	s.state.report(s.log, before)
}

// report logs a source that goes down or comes up.
func (s *SourceState) report(log *slog.Logger, before Reason) {
	switch {
	case s.Reason == before:
	case s.Up():
		log.Info("telemetry source is up", "source", s.Source, "class", string(s.Class))
	default:
		log.Warn("telemetry source is down", "source", s.Source, "class", string(s.Class), "reason", string(s.Reason), "err", s.Message)
	}
}

// health returns how the source is: a reading that the kernel does not let go of
// is over its time before it ends. s.mu is held.
func (s *source) health(now time.Time) SourceState {
	state := s.state
	if waited := now.Sub(s.begun); s.flight != nil && waited > s.limit {
		state.Reason, state.Message = CallTimeout, fmt.Sprintf("the reading that began %v ago has not ended", waited.Round(time.Second))
	}
	return state
}

// quarantine is how long what hung rests after n timeouts in a row. There is
// no rest after the first: when a QEMU hangs, the abandoned call holds that
// machine's lock in libvirt, and the next one gets round it.
func quarantine(n int, limit time.Duration) time.Duration {
	return min(limit*time.Duration(1<<min(n-1, 10)-1), time.Minute)
}

// fresh returns the last reading if it is younger than maxAge. Without s.mu
// it may change.
func (s *source) fresh(now time.Time, maxAge time.Duration) *reading {
	if s.success.IsZero() || now.Sub(s.success) > maxAge {
		return nil
	}
	return &s.last
}

// stop makes the source's end known. A reading in flight ends with its context.
func (s *source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.flight == nil {
		s.close()
	}
}
