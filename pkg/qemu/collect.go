package qemu

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// Options is what a [Collector] needs to know. Root is required; the zero
// value of anything else means its default.
type Options struct {
	// URIs name the libvirt daemons to read; none means all with a socket in
	// the usual places.
	URIs []string
	// Kubelet is the kubelet's directory, usually /var/lib/kubelet, in whose
	// pods virt-launchers are looked for; empty means that none are.
	Kubelet string
	Root    *hostfs.Root
	Log     *slog.Logger

	Budget      time.Duration // a collection waits for sources: 500 ms
	CallTimeout time.Duration // one reading of one source may take: 10 s
	MaxAge      time.Duration // a late reading is served while younger: 1 min

	MonitorCalls int      // calls at a time to one daemon's QEMUs: 4
	VFs          VFReader // nil: virtual functions have no counters
	Programs     Programs // nil: run-queue delays are not measured, and all else is read in /proc
	// Groups switches groups of statistics on and off; see groups.go. One that
	// is not named is as it is by default. State is always on, and so is what
	// the kernel tells but threadDetail.
	Groups map[string]bool
	// KVMStats names the statistics of KVM to keep, of virtual CPUs and of
	// whole machines; nil means a few that are worth it.
	KVMStats []string

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
	spare  []*Snapshot    // released, to be filled again

	// data is for what the sources share: readings and states. It is never
	// held for long, and taken before mu where both are.
	data sync.Mutex
	// processes are what the last reading of the kernel class knows of
	// machines, by pod and UUID.
	processes map[place]signs

	// Only the collection in flight touches what follows, and Run at its end.
	proc    *source
	daemons []*daemonSources
	merger  *merger

	launchers *launchers // nil without Options.Kubelet
}

// daemonSources are the sources that one daemon is.
type daemonSources struct {
	daemon
	light   *source
	monitor *monitor
	control *control
	cancel  context.CancelFunc // ends the daemon's life
}

// flight is one collection, shared by all who ask while it lasts.
type flight struct {
	collector *Collector
	hurry     chan struct{} // closed when somebody cannot wait longer
	hurryOnce sync.Once
	done      chan struct{}
	snapshot  *Snapshot
	users     atomic.Int32 // who have not released the snapshot yet; one is the flight itself
}

// release gives the snapshot's memory back when nobody uses it any more.
func (f *flight) release() {
	if f.users.Add(-1) != 0 {
		return
	}
	c := f.collector
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spare) < maxSpare {
		c.spare = append(c.spare, f.snapshot)
	}
}

// maxSpare bounds the snapshots that are kept to be filled again: more are in
// use at the same time only when somebody is slow to read them.
const maxSpare = 2

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
	if opt.KVMStats == nil {
		opt.KVMStats = standardKVMStats[:]
	}
	if opt.MonitorCalls <= 0 {
		opt.MonitorCalls = 4
	}
	opt.Root = opt.Root.Apart()
	c := &Collector{opt: opt, merger: newMerger(), processes: make(map[place]signs)}
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
	c.proc.after = c.observe
	if opt.Kubelet != "" {
		c.launchers = newLaunchers(opt.Root, opt.Kubelet, opt.Log)
	}
	return c, nil
}

// Run lets collections happen until ctx is done, and returns when everything
// they started has ended; what the kernel does not let go is waited for no longer
// than one call may take. A Collector runs once.
func (c *Collector) Run(ctx context.Context, ready func()) error {
	c.mu.Lock()
	if c.life != nil {
		c.mu.Unlock()
		return errors.New("run VM collector: it has run before")
	}
	c.life = ctx
	c.mu.Unlock()
	if c.launchers != nil {
		c.launchers.scan(nil) // for the first to ask
		c.begin(func() { c.launchers.run(ctx) })
	}
	ready()
	<-ctx.Done()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.work.Wait()
		c.proc.stop()
		for _, d := range c.daemons {
			d.stop()
		}
	}()
	select {
	case <-over:
	case <-time.After(c.opt.CallTimeout):
		c.opt.Log.Warn("a reading of VMs hangs in the kernel, and is left to end by itself", "waited", c.opt.CallTimeout)
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
// there is nothing to tell. See [Snapshot.Release].
func (c *Collector) Collect(ctx context.Context) *Snapshot {
	f := c.join()
	if f == nil {
		return &Snapshot{Time: c.opt.Now()}
	}
	select {
	case <-f.done:
		return f.share()
	case <-ctx.Done():
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		f.release()
		return &Snapshot{Time: c.opt.Now()}
	}
	f.hurryOnce.Do(func() { close(f.hurry) })
	<-f.done
	return f.share()
}

// share returns the snapshot for one of its users.
func (f *flight) share() *Snapshot {
	s := *f.snapshot
	s.flight = f
	return &s
}

// join returns the collection in flight, or a new one.
func (c *Collector) join() *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight != nil {
		c.flight.users.Add(1)
		return c.flight
	}
	f := &flight{collector: c, hurry: make(chan struct{}), done: make(chan struct{})}
	if !c.beginLocked(func() { c.fly(f) }) {
		return nil
	}
	f.users.Store(2)
	c.flight = f
	return f
}

// fly makes one collection.
func (c *Collector) fly(f *flight) {
	c.refresh()
	c.read(f)
	f.snapshot = c.assemble()
	c.mu.Lock()
	c.flight = nil
	c.mu.Unlock()
	close(f.done)
	f.release()
}

// read has all sources read, and returns when they have answered or when
// time is up. The monitor class of a daemon begins when its light class ends,
// which says what there is to ask for. It is waited for as long as that takes
// only where there are no numbers to serve meanwhile.
func (c *Collector) read(f *flight) {
	budget, brief := time.NewTimer(c.opt.Budget), time.NewTimer(c.opt.Budget/briefly)
	defer budget.Stop()
	defer brief.Stop()
	wait := func(done <-chan struct{}, up <-chan time.Time) bool {
		if done == nil {
			return true
		}
		select {
		case <-done:
			return true
		case <-up:
		case <-f.hurry:
		case <-c.life.Done():
		}
		return false
	}
	pending := []<-chan struct{}{c.proc.start(c.life, c.begin)}
	for _, d := range c.daemons {
		pending = append(pending, d.light.start(d.life, c.begin))
	}
	for _, done := range pending {
		if !wait(done, budget.C) {
			return
		}
	}
	pending = pending[:0]
	for _, d := range c.daemons {
		served, done := d.monitor.pending()
		if !wait(served, budget.C) || !wait(d.control.pending(), budget.C) {
			return
		}
		pending = append(pending, done)
	}
	for _, done := range pending {
		if !wait(done, brief.C) {
			return
		}
	}
}

// observe takes over what a reading of the kernel class knows of machines.
func (c *Collector) observe(r *reading, err error) {
	c.data.Lock()
	defer c.data.Unlock()
	clear(c.processes)
	if err != nil {
		return
	}
	for i := range r.vms {
		vm := &r.vms[i]
		if vm.UUID != "" {
			c.processes[place{vm.Pod, vm.UUID}] = signs{
				running: true, storage: vm.Process.IO.ReadBytes.V + vm.Process.IO.WriteBytes.V, vcpus: len(vm.Process.VCPUs),
			}
		}
	}
}

// refresh brings the list of daemons up to date. A daemon that was found and
// has lost its sockets stays, and is reported down, as long as its directory
// is there; a pod's goes with its socket.
func (c *Collector) refresh() {
	var targets []target
	for i, u := range c.uris {
		targets = append(targets, explicit(c.opt.Root, c.opt.URIs[i], u))
	}
	if len(c.uris) == 0 {
		targets = discover(c.opt.Root)
	}
	if c.launchers != nil {
		targets = append(targets, c.launchers.targets()...)
	}
	// The least trusted come last: what a pod calls its machine the kubelet has a word in.
	slices.SortStableFunc(targets, func(a, b target) int { return cmp.Compare(min(a.owner, 0), min(b.owner, 0)) })
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
		there, err := c.opt.Root.Exists(d.target.dir)
		if d.target.pod == "" && (err != nil || there) {
			now = append(now, d)
		} else {
			d.stop()
		}
	}
	c.daemons = now
}

func (c *Collector) newDaemon(t target) *daemonSources {
	d := &daemonSources{daemon: daemon{root: c.opt.Root, target: t}}
	d.life, d.cancel = context.WithCancel(c.life)
	d.light, d.control = newLightSource(&d.daemon, c), newControl(&d.daemon, c)
	d.monitor = newMonitor(&d.daemon, d.control, c)
	d.light.after = func(r *reading, err error) {
		if err != nil {
			d.monitor.fail(err)
			d.control.fail(err)
		} else {
			d.control.start(r.refs)
			d.monitor.start(r.refs)
		}
	}
	return d
}

func (d *daemonSources) stop() {
	d.cancel()
	d.light.stop()
	d.monitor.stop()
	d.control.stop()
}

// pod returns what is known about a pod; without a UID there is none.
func (c *Collector) pod(uid string) pod {
	if c.launchers == nil || uid == "" {
		return pod{uid: uid}
	}
	return c.launchers.pod(uid)
}

// assemble puts together what every source has to serve now.
func (c *Collector) assemble() *Snapshot {
	s := c.blank()
	c.data.Lock()
	defer c.data.Unlock()
	s.Time = c.opt.Now()
	s.Sources = append(s.Sources[:0], c.proc.health(s.Time))
	c.merger.early = s.Sources[0].LastSuccess.IsZero() && (s.Sources[0].Reason == Pending || s.Sources[0].Reason == CallTimeout)
	for _, d := range c.daemons {
		s.Sources = append(s.Sources, d.light.health(s.Time), d.monitor.health(), d.control.state)
		if light := d.light.fresh(s.Time, c.opt.MaxAge); light != nil {
			c.merger.addDaemon(light, d, c.pod(d.target.pod), s.Time)
		}
	}
	if processes := c.proc.fresh(s.Time, c.opt.MaxAge); processes != nil {
		c.merger.addProcesses(processes.vms, c.pod)
	}
	s.VMs, s.Duplicates = c.merger.appendTo(s.VMs[:0]), c.merger.duplicates
	c.merger.reset()
	return s
}

// blank returns a snapshot to be filled, with memory in it if there is some.
func (c *Collector) blank() *Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.spare) - 1
	if last < 0 {
		return new(Snapshot)
	}
	s := c.spare[last]
	c.spare = c.spare[:last]
	return s
}
