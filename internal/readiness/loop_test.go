package readiness

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/uevent"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// bed is a loop over a host that a test changes, in a bubble of its own time.
type bed struct {
	*Loop
	log    bytes.Buffer
	events chan uevent.Event

	mu     sync.Mutex
	status kvmcheck.Status
	pages  string
	took   time.Duration // by a probe
	probes []time.Time
}

func (b *bed) Receive() (uevent.Event, error) {
	event, open := <-b.events
	if !open {
		return event, os.ErrClosed
	}
	return event, nil
}

func (b *bed) Close() error { close(b.events); return nil }

func (b *bed) set(status kvmcheck.Status, pages string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status, b.pages = status, pages
}

func (b *bed) probe(ctx context.Context) kvmcheck.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probes = append(b.probes, time.Now())
	select {
	case <-time.After(b.took):
	case <-ctx.Done():
	}
	findings := []kvmcheck.Finding{{Area: "kvm", Check: "device", Level: kvmcheck.Required, Status: b.status}}
	return kvmcheck.Report{Time: time.Now(), Verdict: b.status, Findings: findings}
}

// counts returns how many probes each trigger started, Start left out.
func (b *bed) counts() map[Trigger]uint64 {
	state, _ := b.State()
	probes := maps.Clone(state.Probes)
	delete(probes, Start)
	return probes
}

func newBed() *bed {
	b := &bed{events: make(chan uevent.Event), status: kvmcheck.Ready}
	b.Loop = New(Options{
		Probe: b.probe,
		Hugepages: func(context.Context) string {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.pages
		},
		Listen: func() (Events, error) { return b, nil },
		Random: func() float64 { return 0.5 },
		Log:    slog.New(slog.NewTextHandler(&b.log, nil)),
	})
	return b
}

// start runs the loop until the test ends.
func (b *bed) start(t *testing.T, interval time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, interval, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
}

func moduleEvent() uevent.Event {
	return uevent.Event{Action: "add", Path: "/module/kvm_amd", Subsystem: "module"}
}

func TestLoopProbesWhenThereIsACause(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(b *bed)
		want    map[Trigger]uint64
	}{
		"nothing for three intervals": {
			func(*bed) { time.Sleep(181 * time.Second) },
			map[Trigger]uint64{Interval: 3},
		},
		"an event": {
			func(b *bed) { b.events <- moduleEvent(); time.Sleep(time.Second) },
			map[Trigger]uint64{Uevent: 1},
		},
		"a storm of a thousand events": {
			func(b *bed) {
				for range 1000 {
					b.events <- moduleEvent()
					time.Sleep(time.Millisecond)
				}
				time.Sleep(5 * time.Second)
			},
			map[Trigger]uint64{Uevent: 1},
		},
		"a storm that goes on": {
			func(b *bed) {
				for range 95 {
					b.events <- moduleEvent()
					time.Sleep(100 * time.Millisecond)
				}
			},
			map[Trigger]uint64{Uevent: 4},
		},
		"an event while a probe goes on": {
			func(b *bed) {
				b.mu.Lock()
				b.took = time.Second
				b.mu.Unlock()
				b.events <- moduleEvent()
				time.Sleep(750 * time.Millisecond)
				b.events <- moduleEvent()
				time.Sleep(5 * time.Second)
			},
			map[Trigger]uint64{Uevent: 2},
		},
		"events that change nothing": {
			func(b *bed) {
				b.events <- uevent.Event{Action: "change", Path: "/devices/virtual/misc/kvm", Subsystem: "misc", Device: "kvm"}
				b.events <- uevent.Event{Action: "add", Path: "/devices/virtual/net/tap0", Subsystem: "net"}
				b.events <- uevent.Event{Action: "add", Path: "/devices/virtual/misc/fuse", Subsystem: "misc", Device: "fuse"}
				time.Sleep(5 * time.Second)
			},
			map[Trigger]uint64{},
		},
		"events that were lost": {
			func(b *bed) { b.events <- uevent.Event{}; time.Sleep(time.Second) },
			map[Trigger]uint64{Uevent: 1},
		},
		"the huge pages change": {
			func(b *bed) { b.set(kvmcheck.Ready, "64 pages"); time.Sleep(25 * time.Second) },
			map[Trigger]uint64{Hugepages: 1},
		},
		"a no, three times looked at": {
			func(b *bed) {
				b.set(kvmcheck.NotReady, "")
				b.events <- moduleEvent()
				time.Sleep(119 * time.Second)
			},
			map[Trigger]uint64{Uevent: 1, Confirm: 2},
		},
		"what cannot be read is not looked at more often": {
			func(b *bed) {
				b.set(kvmcheck.Unknown, "")
				b.events <- moduleEvent()
				time.Sleep(119 * time.Second)
			},
			map[Trigger]uint64{Uevent: 1, Interval: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed()
				b.start(t, time.Minute)
				test.happens(b)
				synctest.Wait()
				if diff := cmp.Diff(test.want, b.counts()); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestLoopKeepsTheDurableVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		b.start(t, time.Hour)
		say := func(status, durable kvmcheck.Status) {
			t.Helper()
			synctest.Wait()
			state, _ := b.State()
			if state.Report.Verdict != status || state.Steady.Verdict() != durable {
				t.Errorf("now %v, durable %v; want %v, %v", state.Report.Verdict, state.Steady.Verdict(), status, durable)
			}
		}
		say(kvmcheck.Ready, kvmcheck.Ready)
		b.set(kvmcheck.NotReady, "")
		b.events <- moduleEvent()
		time.Sleep(time.Second)
		say(kvmcheck.NotReady, kvmcheck.Ready)
		time.Sleep(time.Minute)
		say(kvmcheck.NotReady, kvmcheck.NotReady)
		b.set(kvmcheck.Ready, "")
		b.events <- moduleEvent()
		time.Sleep(time.Second)
		say(kvmcheck.Ready, kvmcheck.Ready)
		for _, want := range []string{"from=Unknown to=Ready", "from=Ready to=NotReady", "from=NotReady to=Ready"} {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, b.log.String())
			}
		}
	})
}

func TestLoopOutlivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = b.Run(ctx, time.Minute, func() {}) }()
		synctest.Wait()
		b.set(kvmcheck.NotReady, "")
		cancel()
		synctest.Wait()
		b.events = make(chan uevent.Event)
		b.start(t, time.Minute)
		state, _ := b.State()
		if state.Steady.Verdict() != kvmcheck.Ready {
			t.Error("a reload started the hysteresis afresh")
		}
		if diff := cmp.Diff(map[Trigger]uint64{Reload: 1}, b.counts()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLoopWithoutEventsSaysSoOnce(t *testing.T) {
	for name, listen := range map[string]func(*bed) (Events, error){
		"none from the start": func(*bed) (Events, error) { return nil, errors.New("no uevents here") },
		"they end":            func(b *bed) (Events, error) { close(b.events); return ended{}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed()
				b.opt.Listen = func() (Events, error) { return listen(b) }
				ctx, cancel := context.WithCancel(t.Context())
				go func() { _ = b.Run(ctx, time.Minute, func() {}) }()
				synctest.Wait()
				cancel()
				synctest.Wait()
				b.events = make(chan uevent.Event)
				b.start(t, time.Minute)
				time.Sleep(61 * time.Second)
				synctest.Wait()
				state, _ := b.State()
				if state.Events || state.Probes[Interval] != 1 {
					t.Errorf("%+v", state)
				}
				if got := strings.Count(b.log.String(), "only the interval starts a check"); got != 1 {
					t.Errorf("said %d times:\n%s", got, b.log.String())
				}
			})
		})
	}
}

// ended is a source that fails at once.
type ended struct{}

func (ended) Receive() (uevent.Event, error) {
	return uevent.Event{}, errors.New("no uevents any more")
}
func (ended) Close() error { return nil }

func TestLoopThrowsAwayAProbeThatWasCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed()
		b.took = time.Minute
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = b.Run(ctx, time.Minute, func() { t.Error("ready without a probe") }) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if _, probed := b.State(); probed {
			t.Error("a probe that was cut short counts")
		}
	})
}

func TestIntervalsStrayByATenth(t *testing.T) {
	var got []time.Duration
	for _, random := range []float64{0, 0.25, 0.5, 0.75} {
		got = append(got, strayed(time.Minute, random))
	}
	want := []time.Duration{54 * time.Second, 57 * time.Second, time.Minute, 63 * time.Second}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if most := strayed(time.Minute, 0.999999); most < 65*time.Second || most > 66*time.Second {
		t.Errorf("the longest is %v", most)
	}
}
