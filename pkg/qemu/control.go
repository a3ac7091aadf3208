package qemu

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
)

const (
	// xmlLimit is how long the XML of one domain may take. It takes a
	// millisecond, and half a minute when somebody holds the domain's job.
	xmlLimit = 2 * time.Second
	// xmlPace is the least time between two readings of one domain's XML.
	xmlPace = time.Second
	// xmlHeld is how long libvirt itself waits for a domain's job, and maxHeld
	// how many of its workers may do so for us.
	xmlHeld = 30 * time.Second
	maxHeld = 4
	// resync is how long events are relied upon, and resyncDeaf how long XML is
	// believed without events.
	resync, resyncDeaf = 10 * time.Minute, time.Minute
)

// control follows the domains of one daemon: what they are, as their XML
// says, and whether their guest agent is there. Over one connection it hears
// of events, over another it asks for the XML that they changed; so a domain
// whose XML hangs delays neither events nor statistics. Which domains there
// are the light class says. A round of questions is begun by an event, or by a
// scrape.
type control struct {
	daemon *daemon
	now    func() time.Time
	log    *slog.Logger
	limit  time.Duration // for one call
	wait   time.Duration // for one round, by all collections together
	begin  func(func()) bool

	mu        *sync.Mutex // of the collector, for all that follows
	closed    bool
	domains   map[[16]byte]*followed
	lists     uint64 // lists of domains seen
	listening bool
	deaf      bool      // the daemon offers no events
	synced    time.Time // when all XML was to be read last
	flight    chan struct{}
	begun     time.Time
	starter   *time.Timer // begins a round for an event that came too soon after another
	failures  int         // rounds in a row
	notBefore time.Time
	state     SourceState
}

// followed is a domain as far as it was heard of.
type followed struct {
	ref        domainRef
	seen       uint64      // number of the last list that had it
	definition *Definition // nil: unknown
	agent      Num
	agentHeard bool   // an event told of the agent since the XML was asked for
	changes    uint64 // that were heard of, or may have been missed
	balloon    uint64 // how often its balloon changed
	moves      bool   // it was heard of its migration, and not that it has ended
	stale      bool   // the XML is to be read
	failures   int    // readings of it in a row
	notBefore  time.Time
}

func newControl(d *daemon, c *Collector) *control {
	follows := &control{
		daemon: d, now: c.opt.Now, log: c.opt.Log, limit: c.opt.CallTimeout, wait: c.opt.Budget, begin: c.begin,
		mu: &c.data, domains: make(map[[16]byte]*followed),
		state: SourceState{Source: d.target.name, Class: Control, Reason: Pending},
	}
	follows.starter = time.AfterFunc(time.Hour, func() {
		follows.mu.Lock()
		defer follows.mu.Unlock()
		follows.wake(follows.now())
	})
	follows.starter.Stop()
	return follows
}

// start takes over which domains the light class has just listed, and begins
// a round if there is something to ask.
func (c *control) start(refs []domainRef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	c.lists++
	for _, ref := range refs {
		domain := c.domains[ref.uuid]
		if domain == nil {
			domain = &followed{stale: true}
			c.domains[ref.uuid] = domain
		} else if domain.ref.number != ref.number {
			domain.stale, domain.moves = true, false // another QEMU, whatever events say
		}
		domain.ref, domain.seen = ref, c.lists
	}
	for uuid, domain := range c.domains {
		if domain.seen != c.lists {
			delete(c.domains, uuid)
		}
	}
	good := resync
	if c.deaf {
		good = resyncDeaf
	}
	if now.Sub(c.synced) >= good {
		c.deaf = false
		c.expire(now)
	}
	c.wake(now)
}

// expire has all XML read again. c.mu is held.
func (c *control) expire(now time.Time) {
	c.synced = now
	for _, domain := range c.domains {
		domain.stale = true
		if domain.definition != nil {
			domain.changes++
		}
	}
}

// wake begins a round if there is something to ask, or to be said of a daemon
// that was down and answers again. c.mu is held.
func (c *control) wake(now time.Time) {
	idle := (c.listening || c.deaf) && c.state.Reason == Ready && c.nextStale(now) == nil
	if c.closed || c.flight != nil || now.Before(c.notBefore) || idle {
		c.postpone(now)
		return
	}
	flight := make(chan struct{})
	if c.begin(func() { c.round(flight) }) {
		c.flight, c.begun = flight, now
	}
}

// postpone has a round begun for what was read too recently to be read now. c.mu is
// held.
func (c *control) postpone(now time.Time) {
	next := xmlPace + 1
	for _, domain := range c.domains {
		if rest := domain.notBefore.Sub(now); domain.stale && rest > 0 {
			next = min(next, rest)
		}
	}
	if next <= xmlPace && !c.closed {
		c.starter.Reset(next)
	}
}

// nextStale returns a domain whose XML is to be read now. c.mu is held.
func (c *control) nextStale(now time.Time) *followed {
	for _, domain := range c.domains {
		if domain.stale && !now.Before(domain.notBefore) {
			return domain
		}
	}
	return nil
}

// pending returns a channel that is closed when the first round has ended.
// Later ones only change what is known already: then, and when the round is
// late, there is nothing to wait for, and nil is returned.
func (c *control) pending() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.state.LastSuccess.IsZero() || c.now().Sub(c.begun) >= c.wait {
		return nil
	}
	return c.flight
}

// round listens, and reads what there is to read. It goes on while events
// make more.
func (c *control) round(flight chan struct{}) {
	asked := &line{daemon: c.daemon}
	err := c.listen()
	for more := true; more; {
		if err == nil {
			err = c.ask(asked)
		}
		c.mu.Lock()
		// An event that came after the last question has begun no round.
		if more = err == nil && !c.closed && c.nextStale(c.now()) != nil; !more {
			if c.daemon.life.Err() == nil {
				c.store(err)
			}
			c.flight = nil
			c.postpone(c.now())
			close(flight)
		}
		c.mu.Unlock()
	}
	asked.close()
}

// store takes over how a round ended. c.mu is held.
func (c *control) store(err error) {
	now := c.now()
	if err == nil {
		c.failures, c.state.LastSuccess = 0, now
	} else {
		c.failures++
		c.notBefore = now.Add(quarantine(c.failures+1, xmlLimit))
	}
	if reasonOf(err) == CallTimeout {
		c.notBefore = now.Add(xmlHeld)
	}
	c.turn(err)
}

// turn takes over how the daemon is. c.mu is held.
func (c *control) turn(err error) {
	before := c.state.Reason
	c.state.Reason, c.state.Message = reasonOf(err), ""
	if err != nil {
		c.state.Message = err.Error()
	}
	c.state.report(c.log, before)
}

// fail says that nothing was asked, because the light class failed. What is
// known stays: it is about the machine, not about the daemon.
func (c *control) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn(err)
}

// listen opens the connection for events, unless it is open. A daemon without
// events is asked by time alone.
func (c *control) listen() error {
	c.mu.Lock()
	heard := c.listening || c.deaf
	c.mu.Unlock()
	if heard {
		return nil
	}
	told := &line{daemon: c.daemon}
	deadline := time.Now().Add(c.limit)
	if err := told.connect(deadline); err != nil {
		return err
	}
	l, err := listen(told.conn, c.hear, deadline)
	var refused *callError
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.As(err, &refused):
		c.deaf = true
	case err != nil:
		told.close()
		return err
	case c.begin(func() { c.follow(l) }):
		c.listening = true
		c.expire(c.now()) // what was missed is in the XML
		return nil
	}
	told.close()
	return nil
}

// follow hears events until the connection ends. The next scrape makes a new one.
func (c *control) follow(l *listener) {
	err := l.follow(c.daemon.life)
	l.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listening = false
	if c.daemon.life.Err() == nil && !lost(err) {
		c.notBefore = c.now().Add(xmlLimit)
		c.log.Warn("events of VMs are cut off", "source", c.daemon.target.name, "err", err)
	}
}

// hear takes in an event, and begins a round for what it changed.
func (c *control) hear(e domainEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	domain := c.domains[e.domain.uuid]
	if domain == nil {
		if e.gone || len(c.domains) >= c.daemon.target.domains() {
			return
		}
		domain = &followed{ref: e.domain}
		c.domains[e.domain.uuid] = domain
	}
	domain.ref.name, domain.ref.number = e.domain.name, e.domain.number
	domain.stale = domain.stale || e.xml
	if e.xml {
		domain.changes++
	}
	if e.balloon {
		domain.balloon++
	}
	domain.moves = domain.moves || e.moves
	if e.agent {
		domain.agent, domain.agentHeard = e.state, true
	}
	if e.xml {
		c.wake(c.now())
	}
}

// about returns what is known of a domain: nil and unset, if nothing. c.mu is
// held.
func (c *control) about(ref *domainRef) (*Definition, Num) {
	if domain := c.domains[ref.uuid]; domain != nil {
		return domain.definition, domain.agent
	}
	return nil, Num{}
}

// sign adds the changes that were heard of to the signs of a domain, and
// reports whether all that its balloon can tell is heard of: the guest's own
// statistics are not. c.mu is held.
func (c *control) sign(to *signs, ref *domainRef) (silentBalloon bool) {
	domain := c.domains[ref.uuid]
	if domain == nil {
		return false
	}
	to.events, to.balloon = domain.changes, domain.balloon
	return c.listening && domain.definition != nil && domain.definition.memoryPeriod == 0
}

// job returns the job of a domain that was heard of, or none. c.mu is held.
func (c *control) job(ref *domainRef) string {
	if domain := c.domains[ref.uuid]; domain != nil && domain.moves {
		return migrationOut
	}
	return ""
}

// jobEnded forgets it. c.mu is held.
func (c *control) jobEnded(ref *domainRef) {
	if domain := c.domains[ref.uuid]; domain != nil {
		domain.moves = false
	}
}

// ask reads all XML that is stale.
func (c *control) ask(on *line) error {
	held := 0
	for {
		c.mu.Lock()
		now := c.now()
		domain := c.nextStale(now)
		if domain == nil || c.closed {
			c.mu.Unlock()
			return nil
		}
		domain.stale, domain.agentHeard = false, false // events from now on change that
		domain.notBefore = now.Add(xmlPace)
		ref := domain.ref
		c.mu.Unlock()

		deadline := time.Now().Add(min(c.limit, xmlLimit))
		err := on.connect(deadline)
		var definition *Definition
		if err == nil {
			definition, err = on.conn.definition(&ref, deadline)
		}
		c.took(&ref, definition, err)
		switch reason := reasonOf(err); {
		case reason == Ready, reason == CallRefused, errors.Is(err, errBadXML):
		case reason == CallTimeout && on.conn != nil && held < maxHeld-1:
			held++
			on.close() // the call is still on its way there
		default:
			on.close()
			return err
		}
	}
}

// took stores what reading a domain's XML came to. Without new XML the old
// one holds.
func (c *control) took(ref *domainRef, definition *Definition, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	domain := c.domains[ref.uuid]
	if domain == nil {
		return
	}
	var refused *callError
	switch {
	case err == nil:
		if !domain.agentHeard {
			domain.agent = definition.agent
		}
		domain.definition, domain.failures = definition, 0
	case errors.As(err, &refused) && refused.code == libvirt.ErrNoDomain:
		domain.definition, domain.agent = nil, Num{} // the next list will lack it
	default:
		domain.stale = true
		domain.failures++
		domain.notBefore = c.now().Add(time.Minute << min(domain.failures-1, 3))
		if reasonOf(err) == CallTimeout {
			c.state.Abandoned++
		}
		c.log.Debug("XML of a VM cannot be read", "source", c.daemon.target.name, "domain", clip(ref.name), "err", err)
	}
}

// stop makes the end known. Connections end with the daemon's life.
func (c *control) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.starter.Stop()
}
