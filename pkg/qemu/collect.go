package qemu

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// Options is what a [Collector] needs to know. Root is required; the zero
// value of anything else means its default.
type Options struct {
	// URIs name the libvirt daemons to read; none means all with a socket in
	// the usual places.
	URIs []string
	Root *hostfs.Root
	Log  *slog.Logger

	Budget      time.Duration // a collection waits for sources: 500 ms
	CallTimeout time.Duration // one reading of one source may take: 10 s
	MaxAge      time.Duration // a late reading is served while younger: 1 min

	// ContextSwitches asks for those of each thread, which cost a file more.
	ContextSwitches bool
	VFs             VFReader // nil: virtual functions have no counters
	RunQueue        RunQueue // nil: run-queue delays are not measured

	Now func() time.Time // time.Now; ages and quarantine go by it
}

// Collector reads the machines of a host for whoever scrapes.
type Collector struct {
	opt  Options
	uris []uri // of Options.URIs

	mu     sync.Mutex
	life   context.Context // of Run; nil before
	ended  bool            // nothing is started any more
	flight *flight
	work   sync.WaitGroup // flights and readings

	// Only the collection in flight touches what follows, and Run at its end.
	proc    *source
	daemons []*daemonSources
}

// daemonSources are the sources that one daemon is.
type daemonSources struct {
	target         target
	light, monitor *source
	life           context.Context
	cancel         context.CancelFunc // ends life
}

// flight is one collection, shared by all who ask while it lasts.
type flight struct {
	hurry     chan struct{} // closed when somebody cannot wait longer
	hurryOnce sync.Once
	done      chan struct{}
	snapshot  *Snapshot
}

// New checks the options. It reads and connects nothing.
func New(opt Options) (*Collector, error) {
	if opt.Root == nil {
		return nil, errors.New("make VM collector: no root")
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	for _, setting := range []struct {
		value *time.Duration
		unset time.Duration
	}{{&opt.Budget, 500 * time.Millisecond}, {&opt.CallTimeout, 10 * time.Second}, {&opt.MaxAge, time.Minute}} {
		if *setting.value == 0 {
			*setting.value = setting.unset
		}
	}
	c := &Collector{opt: opt}
	c.opt.URIs = slices.Clone(opt.URIs)
	slices.Sort(c.opt.URIs)
	c.opt.URIs = slices.Compact(c.opt.URIs)
	for _, text := range c.opt.URIs {
		u, err := parseURI(text)
		if err != nil {
			return nil, err
		}
		c.uris = append(c.uris, u)
	}
	c.proc = newProcSource(c)
	return c, nil
}

// Run lets collections happen until ctx is done, and returns when everything
// they started has ended. A Collector runs once.
func (c *Collector) Run(ctx context.Context, ready func()) error {
	c.mu.Lock()
	if c.life != nil {
		c.mu.Unlock()
		return errors.New("run VM collector: it has run before")
	}
	c.life = ctx
	c.mu.Unlock()
	ready()
	<-ctx.Done()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.work.Wait()
	c.proc.stop()
	for _, d := range c.daemons {
		d.stop()
	}
	return nil
}

// begin starts a goroutine that Run waits for, unless Run does not run.
func (c *Collector) begin(work func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beginLocked(work)
}

func (c *Collector) beginLocked(work func()) bool {
	if c.life == nil || c.ended {
		return false
	}
	c.work.Go(work)
	return true
}

// Collect reads all sources and returns what is known when all have
// answered, when the budget is spent, or when ctx reaches its deadline. Calls
// at the same time share one collection. Without Run, or with ctx cancelled,
// there is nothing to tell.
func (c *Collector) Collect(ctx context.Context) *Snapshot {
	f := c.join()
	if f == nil {
		return &Snapshot{Time: c.opt.Now()}
	}
	select {
	case <-f.done:
		return f.snapshot
	case <-ctx.Done():
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Snapshot{Time: c.opt.Now()}
	}
	f.hurryOnce.Do(func() { close(f.hurry) })
	<-f.done
	return f.snapshot
}

// join returns the collection in flight, or a new one.
func (c *Collector) join() *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight != nil {
		return c.flight
	}
	f := &flight{hurry: make(chan struct{}), done: make(chan struct{})}
	if !c.beginLocked(func() { c.fly(f) }) {
		return nil
	}
	c.flight = f
	return f
}

// fly makes one collection.
func (c *Collector) fly(f *flight) {
	c.refresh()
	pending := []<-chan struct{}{c.proc.start(c.life, c.begin)}
	for _, d := range c.daemons {
		pending = append(pending, d.light.start(d.life, c.begin), d.monitor.start(d.life, c.begin))
	}
	c.wait(f, pending)
	f.snapshot = c.assemble()
	c.mu.Lock()
	c.flight = nil
	c.mu.Unlock()
	close(f.done)
}

// wait returns when all readings have ended, or when time is up.
func (c *Collector) wait(f *flight, pending []<-chan struct{}) {
	budget := time.NewTimer(c.opt.Budget)
	defer budget.Stop()
	for _, done := range pending {
		if done == nil {
			continue
		}
		select {
		case <-done:
		case <-budget.C:
			return
		case <-f.hurry:
			return
		case <-c.life.Done():
			return
		}
	}
}

// refresh brings the list of daemons up to date. A daemon that was found and
// has lost its sockets stays, and is reported down, as long as its directory
// is there.
func (c *Collector) refresh() {
	var targets []target
	for i, u := range c.uris {
		targets = append(targets, explicit(c.opt.Root, c.opt.URIs[i], u))
	}
	if len(c.uris) == 0 {
		targets = discover(c.opt.Root)
	}
	known := make(map[string]*daemonSources, len(c.daemons))
	for _, d := range c.daemons {
		known[d.target.name] = d
	}
	now := make([]*daemonSources, 0, len(targets))
	for _, t := range targets {
		d := known[t.name]
		if d == nil {
			d = c.newDaemon(t)
		}
		delete(known, t.name)
		now = append(now, d)
	}
	for _, d := range c.daemons {
		if known[d.target.name] == nil {
			continue
		}
		if there, err := c.opt.Root.Exists(d.target.dir); err != nil || there {
			now = append(now, d)
		} else {
			d.stop()
		}
	}
	c.daemons = now
}

func (c *Collector) newDaemon(t target) *daemonSources {
	d := &daemonSources{target: t, light: newDaemonSource(t, Light, c), monitor: newDaemonSource(t, Monitor, c)}
	d.life, d.cancel = context.WithCancel(c.life)
	return d
}

func (d *daemonSources) stop() {
	d.cancel()
	d.light.stop()
	d.monitor.stop()
}

// assemble puts together what every source has to serve now.
func (c *Collector) assemble() *Snapshot {
	s := &Snapshot{Time: c.opt.Now()}
	result := func(from *source) *reading {
		r, state := from.result(s.Time, c.opt.MaxAge)
		s.Sources = append(s.Sources, state)
		return r
	}
	processes := result(c.proc)
	daemons := make([][2]*reading, 0, len(c.daemons))
	for _, d := range c.daemons {
		daemons = append(daemons, [2]*reading{result(d.light), result(d.monitor)})
	}
	s.VMs, s.Duplicates = merge(daemons, processes)
	return s
}
