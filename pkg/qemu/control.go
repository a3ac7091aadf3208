package qemu

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	// maxDomains bounds the domains of a daemon. A pod's daemon has one.
	maxDomains = 16384
	// xmlLimit is how long the XML of one domain may take. It takes a
	// millisecond, and half a minute when somebody holds the domain's job.
	xmlLimit = 2 * time.Second
	// xmlPace is the least time between two readings of one domain's XML.
	xmlPace = time.Second
	// relist is how long events are relied upon, and relistDeaf how long a list
	// is good without events.
	relist, relistDeaf = 10 * time.Minute, time.Minute
)

// control follows the domains of one daemon: what they are, as their XML
// says, and whether their guest agent is there. Over one connection it hears
// of events, over another it asks for what they changed; so a domain whose XML
// hangs delays neither events nor statistics. A round of questions is started
// by an event or a scrape; nothing else wakes it.
type control struct {
	root   *hostfs.Root
	target target
	most   int // domains
	now    func() time.Time
	log    *slog.Logger
	limit  time.Duration // for one call
	wait   time.Duration // for one round, by all collections together

	mu        sync.Mutex
	domains   map[string]*followed // by UUID
	listening bool
	listed    time.Time // when all was read last; zero: never, or events were missed
	unlisted  bool      // a domain is there that no list had
	flight    chan struct{}
	begun     time.Time
	failures  int // rounds in a row
	notBefore time.Time
	state     SourceState
}

// followed is a domain as far as it was heard of.
type followed struct {
	ref        domainRef
	definition *Definition // nil: unknown
	agent      Num
	agentHeard bool // an event told of the agent since the XML was asked for
	stale      bool // the XML is to be read
	failures   int  // readings of it in a row
	notBefore  time.Time
}

func newControl(t target, c *Collector) *control {
	most := maxDomains
	if t.pod != "" {
		most = 1
	}
	return &control{
		root: c.opt.Root, target: t, most: most, now: c.opt.Now, log: c.opt.Log,
		limit: c.opt.CallTimeout, wait: c.opt.Budget,
		domains: make(map[string]*followed),
		state:   SourceState{Source: t.name, Class: Control, Reason: Pending},
	}
}

// start begins a round, if there is something to ask and none is in flight,
// and returns a channel that is closed at its end. Only the first is worth
// waiting for: later ones change what is known already, and nil is returned.
// run starts a goroutine, or reports that it cannot any more.
func (c *control) start(ctx context.Context, run func(func()) bool) <-chan struct{} {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight == nil {
		if now.Before(c.notBefore) || c.listening && !c.listDue(now) && c.nextStale(now) == nil {
			return nil
		}
		flight := make(chan struct{})
		if !run(func() { c.round(ctx, run, flight) }) {
			return nil
		}
		c.flight, c.begun = flight, now
	}
	if !c.state.LastSuccess.IsZero() || now.Sub(c.begun) >= c.wait {
		return nil
	}
	return c.flight
}

// listDue reports whether the domains are to be listed; c.mu is held.
func (c *control) listDue(now time.Time) bool { return c.unlisted || c.allDue(now) }

// allDue reports whether everything is to be read again; c.mu is held.
func (c *control) allDue(now time.Time) bool {
	good := relist
	if !c.listening {
		good = relistDeaf
	}
	return c.listed.IsZero() || now.Sub(c.listed) >= good
}

// nextStale returns a domain whose XML is to be read now; c.mu is held.
func (c *control) nextStale(now time.Time) *followed {
	for _, domain := range c.domains {
		if domain.stale && !now.Before(domain.notBefore) {
			return domain
		}
	}
	return nil
}

// round listens, lists and reads what there is to read. It goes on while
// events make more.
func (c *control) round(ctx context.Context, run func(func()) bool, flight chan struct{}) {
	q := &questions{control: c}
	err := c.listen(ctx, run)
	for more := true; more; {
		if err == nil {
			err = q.ask(ctx)
		}
		c.mu.Lock()
		// An event that came after the last question has started no round.
		if more = err == nil && (c.listDue(c.now()) || c.nextStale(c.now()) != nil); !more {
			if ctx.Err() == nil {
				c.store(err)
			}
			c.flight = nil
			close(flight)
		}
		c.mu.Unlock()
	}
	q.close()
}

// store takes over how a round ended; c.mu is held.
func (c *control) store(err error) {
	now, before := c.now(), c.state.Reason
	c.state.Reason, c.state.Message = reasonOf(err), ""
	if err == nil {
		c.failures, c.state.LastSuccess = 0, now
	} else {
		c.failures++
		c.state.Message = err.Error()
		c.notBefore = now.Add(quarantine(c.failures+1, xmlLimit))
	}
	if before == c.state.Reason {
		return
	}
	if err != nil {
		c.log.Warn("events and XML of VMs cannot be read", "source", c.target.name, "reason", string(c.state.Reason), "err", err)
	} else {
		c.log.Info("events and XML of VMs are read", "source", c.target.name)
	}
}

// listen opens the connection for events, unless it is open. A daemon without
// events is followed by lists alone.
func (c *control) listen(ctx context.Context, run func(func()) bool) error {
	c.mu.Lock()
	listening := c.listening
	c.mu.Unlock()
	if listening {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	conn, err := connect(limited, c.root, c.target)
	if err != nil {
		return err
	}
	heard := func(e domainEvent) { c.hear(ctx, run, e) }
	l, err := listen(limited, conn, heard)
	var refused *callError
	if errors.As(err, &refused) {
		return conn.conn.Close()
	}
	if err != nil {
		return errors.Join(err, conn.conn.Close())
	}
	c.mu.Lock()
	c.listening, c.listed = true, time.Time{} // what was missed is in a list
	c.mu.Unlock()
	if !run(func() { c.follow(ctx, l, heard) }) {
		l.close()
	}
	return nil
}

// follow hears events until the connection ends. The next scrape makes a new one.
func (c *control) follow(ctx context.Context, l *listener, heard func(domainEvent)) {
	err := l.follow(ctx, heard)
	l.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listening, c.listed = false, time.Time{}
	if ctx.Err() == nil && !lost(err) {
		c.log.Warn("events of VMs are cut off", "source", c.target.name, "err", err)
	}
}

// hear takes in an event, and starts a round for what it changed.
func (c *control) hear(ctx context.Context, run func(func()) bool, e domainEvent) {
	uuid := formatUUID(e.domain.uuid[:])
	c.mu.Lock()
	domain := c.domains[uuid]
	switch {
	case domain == nil && (e.gone || len(c.domains) >= c.most):
		c.mu.Unlock()
		return
	case domain == nil:
		domain = &followed{}
		c.domains[uuid] = domain
	case e.gone && e.domain.id < 0:
		delete(c.domains, uuid)
	}
	domain.ref = e.domain
	domain.stale = domain.stale || e.xml || domain.definition == nil
	if e.agent {
		domain.agent, domain.agentHeard = e.state, true
	}
	c.mu.Unlock()
	if e.xml {
		c.start(ctx, run)
	}
}

// apply gives machines of this daemon what their XML and events said. A
// running one that was never heard of makes a list due.
func (c *control) apply(vms []VM) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range vms {
		vm := &vms[i]
		if domain := c.domains[vm.UUID]; domain != nil {
			vm.Definition, vm.Agent = domain.definition, domain.agent
		} else if len(c.domains) < c.most {
			c.unlisted = true
		}
	}
}

// questions are what one round asks, over a connection that is made when the
// first is asked.
type questions struct {
	control *control
	conn    *connection
}

// ask lists the domains if that is due, and reads stale XML.
func (q *questions) ask(ctx context.Context) error {
	c := q.control
	c.mu.Lock()
	due := c.listDue(c.now())
	c.mu.Unlock()
	if due {
		if err := q.list(ctx); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		c.mu.Lock()
		domain := c.nextStale(c.now())
		if domain == nil {
			c.mu.Unlock()
			return nil
		}
		domain.stale, domain.agentHeard = false, false // events from now on change that
		domain.notBefore = c.now().Add(xmlPace)
		ref := domain.ref
		c.mu.Unlock()
		if err := q.read(ctx, ref); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// list brings the list of domains up to date.
func (q *questions) list(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, q.control.limit)
	defer cancel()
	if err := q.connect(limited); err != nil {
		return err
	}
	refs, err := q.conn.domainsOf(limited, q.control.most)
	if err != nil {
		return err
	}
	c := q.control
	c.mu.Lock()
	defer c.mu.Unlock()
	known, all := c.domains, c.allDue(c.now())
	c.domains = make(map[string]*followed, len(refs))
	for _, ref := range refs {
		uuid := formatUUID(ref.uuid[:])
		domain := known[uuid]
		if domain == nil {
			domain = &followed{stale: true}
		}
		domain.ref, domain.stale = ref, domain.stale || all
		c.domains[uuid] = domain
	}
	c.unlisted = false
	if all {
		c.listed = c.now()
	}
	return nil
}

// read reads the XML of one domain. It fails when no other can be read either.
func (q *questions) read(ctx context.Context, ref domainRef) error {
	c := q.control
	limited, cancel := context.WithTimeout(ctx, min(c.limit, xmlLimit))
	defer cancel()
	if err := q.connect(limited); err != nil {
		c.took(ref, nil, err)
		return err
	}
	definition, err := q.conn.definition(limited, ref)
	c.took(ref, definition, err)
	switch reason := reasonOf(err); {
	case ctx.Err() != nil:
		return ctx.Err()
	case reason == Ready, reason == CallRefused, errors.Is(err, errBadXML):
		return nil
	case reason == CallTimeout:
		q.close() // the call is still on its way there
		return nil
	default:
		return err
	}
}

// took stores what reading a domain's XML came to. Without new XML the old
// one holds.
func (c *control) took(ref domainRef, definition *Definition, err error) {
	uuid := formatUUID(ref.uuid[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	domain := c.domains[uuid]
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
		delete(c.domains, uuid)
	default:
		domain.stale = true
		domain.failures++
		domain.notBefore = c.now().Add(time.Minute << min(domain.failures-1, 3))
		if reasonOf(err) == CallTimeout {
			c.state.Abandoned++
		}
		c.log.Debug("XML of a VM cannot be read", "source", c.target.name, "domain", clip(ref.name), "err", err)
	}
}

func (q *questions) connect(ctx context.Context) (err error) {
	if q.conn == nil {
		q.conn, err = connect(ctx, q.control.root, q.control.target)
	}
	return err
}

func (q *questions) close() {
	if q.conn != nil {
		_ = q.conn.conn.Close() // nothing is lost with a connection that only reads
		q.conn = nil
	}
}
