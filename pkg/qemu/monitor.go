package qemu

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// maxHung bounds the machines of one daemon whose QEMU hangs. The call that
// found it out keeps one of libvirt's workers (20, unless configured) until
// that QEMU answers, whatever becomes of our connection: when more hang, as
// they do when storage fails, no other machine is asked, so that the daemon
// goes on serving everybody else.
const maxHung = 8

// monitor reads what only QEMU can tell, for all machines of one daemon. Those
// that have answered before share calls; one of which there are no numbers to
// serve is asked in a call of its own, and so are all whose call has failed: one
// that hangs costs nobody else anything but a slot, and a late call's slot is
// given to another. Calls are spread over a few connections, each with one call
// in flight, because libvirt stops reading a connection that has five.
type monitor struct {
	daemon *daemon
	groups libvirt.DomainStatsTypes
	names  map[string]string // statistics of KVM that are wanted
	now    func() time.Time
	log    *slog.Logger
	limit  time.Duration // for one call
	wait   time.Duration // for one round, by all collections together
	maxAge time.Duration
	slots  int // calls at a time
	begin  func(func()) bool
	notes  *notes // used by start only
	jobs   bool   // somebody wants to know of them

	control   *control
	processes map[place]signs // the collector's, of the kernel class
	mu        *sync.Mutex     // of the collector, for all that follows
	closed    bool
	guests    map[[16]byte]*guest
	lists     uint64 // lists of machines seen
	queue     []*guest
	head      int // of the queue: what is before has been taken
	idle      []*call
	busy      int // calls on their way, but for those that are late
	late      int
	hung      int           // machines with timeouts
	suspects  int           // machines whose shared call failed
	round     *round        // the last one begun
	each      time.Duration // of the last round that ended: its time by machine
	starter   *time.Timer   // begins a round that nobody waits for
	starting  bool          // it is about to
	state     SourceState
}

// guest is one machine as the monitor class knows it.
type guest struct {
	ref           domainRef
	uuid          string
	seen          uint64 // number of the last list that had it
	pid           int    // of its process, as libvirt notes it; 0: unknown
	job           string // as libvirt notes it, or events tell; none: empty
	counted       bool   // the kernel class has known its process
	silentBalloon bool   // events tell of all that its balloon can tell
	signs         signs
	wanted        libvirt.DomainStatsTypes // of the round that it is in
	urgent        bool                     // it has no numbers to serve meanwhile, or old ones
	suspect       bool                     // a call that it shared has failed, and it has not been asked alone since
	round         *round                   // nil while nothing is asked of it
	last, spare   reading
	read          time.Time // when last was read
	turns         [len(paced)]turn
	health        Health
	timeouts      int // in a row
	notBefore     time.Time
}

// round is what one collection asked for.
type round struct {
	begun       time.Time
	asked, left int
	done        chan struct{} // closed when all have answered
	urgent      int
	served      chan struct{} // closed when all that are urgent have answered; nil when there are none
}

func newMonitor(d *daemon, control *control, c *Collector) *monitor {
	m := &monitor{
		daemon: d, control: control, processes: c.processes, now: c.opt.Now, log: c.opt.Log, limit: c.opt.CallTimeout, wait: c.opt.Budget, maxAge: c.opt.MaxAge,
		notes: newNotes(d.root, d.target), groups: bitsOf(Monitor, c.opt.Groups), names: internTable(c.opt.KVMStats),
		slots: c.opt.MonitorCalls, begin: c.begin, mu: &c.data, guests: make(map[[16]byte]*guest),
		state: SourceState{Source: d.target.name, Class: Monitor, Reason: Pending},
	}
	m.starter = time.AfterFunc(time.Hour, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.starting = false
		m.staff()
	})
	m.starter.Stop()
	on, set := c.opt.Groups[jobGroup]
	m.jobs = on || !set
	return m
}

// start begins a round for the machines that the light class has just listed
// and of which a group's rest is over, but for those that are being asked
// already and those in quarantine.
func (m *monitor) start(refs []domainRef) {
	m.notes.refresh(refs)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	now := m.now()
	if m.groups == 0 { // which would ask for all of them
		refs = nil
	}
	m.update(refs)
	m.queue = slices.Delete(m.queue, 0, m.head)
	m.head = 0
	queued := len(m.queue)
	for _, ref := range refs {
		g := m.guests[ref.uuid]
		if g.round != nil || now.Before(g.notBefore) {
			continue
		}
		if g.wanted = m.wanted(g, now); g.wanted == 0 {
			continue
		}
		m.queue = append(m.queue, g)
		m.join(g, now)
	}
	// The one that waited longest comes first: when a budget is too short for
	// all of them, they take turns.
	slices.SortStableFunc(m.queue[queued:], func(a, b *guest) int { return a.health.LastSuccess.Compare(b.health.LastSuccess) })
	m.state.LastSuccess = time.Time{}
	if len(refs) == 0 {
		m.turn(nil)
		m.state.LastSuccess = now
	}
	if r := m.round; r != nil && r.urgent == 0 && !m.brief() {
		// Nobody waits for it: the scrape is answered first. The next scrape
		// must not put it off again.
		if !m.starting {
			m.starting = true
			m.starter.Reset(m.wait / 20)
		}
		return
	}
	m.staff()
}

// briefly is the part of the budget for which a scrape waits for numbers that
// are newer than those it has, as a divisor.
const briefly = 50

// brief reports whether the last round is expected to end within that time.
func (m *monitor) brief() bool { return m.each*time.Duration(m.round.left) <= m.wait/briefly }

// update brings the table of machines up to date.
func (m *monitor) update(refs []domainRef) {
	m.lists++
	m.hung, m.suspects = 0, 0
	for _, ref := range refs {
		g := m.guests[ref.uuid]
		if g == nil {
			g = &guest{uuid: formatUUID("", ref.uuid), health: Health{Reason: Pending}}
			g.last.names, g.spare.names = m.names, m.names
			m.guests[ref.uuid] = g
		} else if g.ref.number != ref.number {
			// Another QEMU: what is known was the one's before.
			g.forget()
			g.counted = false
			g.health, g.timeouts, g.suspect, g.notBefore = Health{Reason: Pending, Abandoned: g.health.Abandoned}, 0, false, time.Time{}
		}
		noted := m.notes.of(ref.name)
		g.ref, g.seen, g.pid, g.job = ref, m.lists, noted.pid, ""
		switch {
		case !m.jobs:
		case m.notes.told:
			g.job = noted.job
		default:
			g.job = m.control.job(&ref)
		}
		m.observe(g)
	}
	for uuid, g := range m.guests {
		if g.seen != m.lists && g.round == nil {
			delete(m.guests, uuid)
			continue
		}
		if g.timeouts > 0 {
			m.hung++
		}
		if g.suspect {
			m.suspects++
		}
	}
}

// observe takes down the signs of a machine.
func (m *monitor) observe(g *guest) {
	if process, found := m.processes[place{m.daemon.target.pod, g.uuid}]; found {
		g.signs, g.counted = process, true
	} else {
		g.signs = signs{}
	}
	g.silentBalloon = m.control.sign(&g.signs, &g.ref)
}

// join makes a machine part of the last round, or of a new one when that has
// ended or is late.
func (m *monitor) join(g *guest, now time.Time) {
	if m.round == nil || m.round.left == 0 || now.Sub(m.round.begun) >= m.wait {
		m.round = &round{begun: now, done: make(chan struct{})}
	}
	g.round = m.round
	g.round.asked++
	g.round.left++
	if g.urgent = g.timeouts == 0 && (len(g.last.vms) == 0 || now.Sub(g.read) >= m.old()); g.urgent {
		if g.round.urgent == 0 {
			g.round.served = make(chan struct{})
		}
		g.round.urgent++
	}
}

// pending returns channels that are closed when the last round has brought
// what a scrape cannot do without, and when it has ended; nil means that there
// is nothing to wait for, that it is late already, or for the second that it is
// not brief.
func (m *monitor) pending() (served, done <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.round
	if r == nil || r.left == 0 || m.now().Sub(r.begun) >= m.wait {
		return nil, nil
	}
	if r.urgent > 0 {
		served = r.served
	}
	if m.brief() {
		done = r.done
	}
	return served, done
}

// fail says that nothing was asked, because the light class failed.
func (m *monitor) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(err)
	if m.state.Reason != CallTimeout {
		m.state.LastSuccess = time.Time{}
		for _, g := range m.guests {
			g.forget()
		}
	}
}

// turn takes over how the daemon is, as the last call found it.
func (m *monitor) turn(err error) {
	before := m.state.Reason
	m.state.Reason, m.state.Message = reasonOf(err), ""
	if err != nil {
		m.state.Message = err.Error()
	}
	m.state.report(m.log, before)
}

// health returns the state of the class: of its call that failed, or of its
// machines together. It is as old as the oldest number that it serves.
// m.mu is held.
func (m *monitor) health() SourceState {
	s := m.state
	s.Unused = 0
	hung, refused := false, false
	for _, g := range m.guests {
		s.Unused += g.last.unused
		if g.seen != m.lists {
			continue
		}
		hung, refused = hung || g.timeouts > 0, refused || g.health.Reason == CallRefused
		if at := g.health.LastSuccess; g.health.Reason == Ready && (s.LastSuccess.IsZero() || at.Before(s.LastSuccess)) {
			s.LastSuccess = at
		}
	}
	switch {
	case s.Reason != Ready || !s.LastSuccess.IsZero():
	case hung:
		s.Reason, s.Message = CallTimeout, "no QEMU answers"
	case refused:
		s.Reason, s.Message = CallRefused, "libvirt tells of no VM"
	}
	return s
}

// numbers returns what is known of a machine, or nil, how it is, and whether
// its CPU time is the kernel's to tell. m.mu is held.
func (m *monitor) numbers(ref *domainRef, now time.Time) (vm *VM, health Health, counted bool) {
	g := m.guests[ref.uuid]
	if g == nil {
		return nil, Health{}, false
	}
	health = g.health
	if !health.LastSuccess.IsZero() {
		health.Age = Some(uint64(max(0, now.Sub(health.LastSuccess))))
	}
	if len(g.last.vms) == 0 || now.Sub(g.read) > m.maxAge {
		return nil, health, g.counted
	}
	return &g.last.vms[0], health, g.counted
}

// process returns a machine's process, as libvirt notes it, or 0. m.mu is held.
func (m *monitor) process(ref *domainRef) int {
	if g := m.guests[ref.uuid]; g != nil && g.ref.number == ref.number {
		return g.pid
	}
	return 0
}

// stop makes the end known. Calls on their way end with the daemon's life.
func (m *monitor) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.starter.Stop()
	for _, c := range m.idle {
		c.close()
	}
	m.idle = nil
}
