package qemu

import (
	"slices"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// maxParty bounds the machines that share a call: a daemon goes through them
// one after the other, and the last must not be late by then.
const maxParty = 8

// call is a slot: a connection, and the call on it.
type call struct {
	line
	party []question
	refs  []domainRef // of the party, when the call began
	bits  libvirt.DomainStatsTypes
	job   string    // of the only one asked
	over  bool      // it has ended
	since time.Time // by the system's clock, as watch is
	watch *time.Timer
	late  bool
	work  func()
}

// question is what a call asks of one machine.
type question struct {
	guest *guest
	saw   signs
}

// staff gives what is queued to calls, as many as may be on their way.
func (m *monitor) staff() {
	for at := m.head; at < len(m.queue) && m.busy < m.slots && m.busy+m.late < 2*m.slots; at += m.party(at) {
		c := m.slot()
		if !m.begin(c.work) {
			m.idle = append(m.idle, c)
			return
		}
		m.busy++
	}
}

// party returns how many machines of the queue, from one on, share a call. Who
// shares one with a machine that hangs gets no numbers, and nobody can tell
// which it was: so only those share that have numbers to serve meanwhile, and
// nobody while a call is late or it is not known who held up the last one.
func (m *monitor) party(at int) int {
	first, n := m.queue[at], 1
	if m.late > 0 || m.suspects > 0 || !first.sociable() {
		return n
	}
	for at+n < len(m.queue) && n < maxParty && m.queue[at+n].wanted == first.wanted && m.queue[at+n].sociable() {
		n++
	}
	return n
}

// sociable reports whether a machine may share a call.
func (g *guest) sociable() bool {
	return len(g.last.vms) > 0 && !g.urgent && g.timeouts == 0 && g.health.Reason == Ready && g.job == "" && g.last.vms[0].Job.Kind == ""
}

// slot returns a connection that carries no call.
func (m *monitor) slot() *call {
	if last := len(m.idle) - 1; last >= 0 {
		c := m.idle[last]
		m.idle = m.idle[:last]
		return c
	}
	c := &call{line: line{daemon: m.daemon}}
	c.work = func() { m.work(c) }
	c.watch = time.AfterFunc(time.Hour, func() { m.overdue(c) })
	c.watch.Stop()
	return c
}

// patience is how long a call may take before its slot goes to another.
func (m *monitor) patience() time.Duration { return m.wait / 4 }

// overdue gives the slot of a late call to another.
func (m *monitor) overdue(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(c.party) == 0 || c.late || time.Since(c.since) < m.patience() {
		return
	}
	c.late = true
	m.busy--
	m.late++
	m.staff()
}

// work makes calls until nothing is queued.
func (m *monitor) work(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.busy <= m.slots && m.next(c) {
		m.mu.Unlock()
		err := m.ask(c)
		m.mu.Lock()
		if c.late {
			c.late = false
			m.late--
			m.busy++
		}
		m.finish(c, err)
	}
	m.busy--
	if m.closed || len(m.idle) >= m.slots {
		c.close()
		return
	}
	m.idle = append(m.idle, c)
}

// next gives the first of the queue that may be asked to a call, and those
// that share it.
func (m *monitor) next(c *call) bool {
	for !m.closed && m.head < len(m.queue) {
		g := m.queue[m.head]
		if m.hung >= maxHung && g.timeouts == 0 {
			m.head++
			g.health.Reason = TooManyHung
			m.leave(g)
			continue
		}
		n := m.party(m.head)
		c.refs = c.refs[:0]
		for _, g := range m.queue[m.head : m.head+n] {
			c.party, c.refs = append(c.party, question{g, g.signs}), append(c.refs, g.ref)
		}
		c.bits, c.job, c.over, c.since = g.wanted, g.job, false, time.Now()
		m.head += n
		return true
	}
	return false
}

// ask makes one call. The spare readings of those asked are nobody else's
// meanwhile.
func (m *monitor) ask(c *call) error {
	c.watch.Reset(m.patience())
	defer c.watch.Stop()
	deadline := c.since.Add(m.limit)
	payload, err := c.stats(c.bits, c.refs, deadline)
	if err != nil {
		return err
	}
	if err := c.decode(payload); err != nil || c.job == "" {
		return err
	}
	r := &c.party[0].guest.spare
	if len(r.vms) == 0 {
		return nil
	}
	r.vms[0].Job.Kind = c.job
	if interrupted(r, c.bits) {
		return nil // what comes next would wait for the lock
	}
	payload, err = c.conn.jobStats(&c.refs[0], deadline)
	switch {
	case reasonOf(err) == CallRefused:
		r.vms[0].Job, c.over = Job{}, true
		return nil
	case err != nil:
		c.close()
		return err
	}
	unused, err := r.vms[0].Job.decode(payload)
	r.unused += unused
	c.over = err == nil && r.vms[0].Job.Kind == ""
	return err
}

// decode reads a reply into the spare readings of those asked.
func (c *call) decode(payload []byte) error {
	for i := range c.party {
		c.party[i].guest.spare.clear()
	}
	return decodeEach(payload, c.daemon.target.name, func(uuid [16]byte) *reading {
		for i := range c.refs {
			if c.refs[i].uuid == uuid {
				return &c.party[i].guest.spare
			}
		}
		return nil
	})
}

// finish stores what a call brought. When one that was shared has failed, those
// who shared it are asked again, each alone: libvirt refuses the whole of it if it
// cannot tell of one of them.
func (m *monitor) finish(c *call, err error) {
	reason := reasonOf(err)
	alive, shared := m.daemon.life.Err() == nil, len(c.party) > 1
	again := alive && shared && (reason == CallTimeout || reason == CallRefused)
	if alive && !again {
		for i, q := range c.party {
			if q.guest.ref.number == c.refs[i].number {
				m.store(q.guest, c.bits, q.saw, err)
			}
		}
	}
	if c.over {
		m.control.jobEnded(&c.refs[0])
	}
	switch {
	case reason == CallRefused && alive && !again:
		m.turn(nil) // it answers: the machine cannot be told of
	case reason != CallTimeout && alive && !again:
		m.turn(err)
	case reason == CallTimeout && again:
		m.state.Abandoned++
	}
	for _, q := range c.party {
		if again {
			q.guest.suspect = true
			m.suspects++
			m.queue = append(m.queue, q.guest)
		} else {
			m.leave(q.guest)
		}
	}
	clear(c.party)
	c.party = c.party[:0]
	if again {
		m.staff()
	}
}

// leave ends a machine's part in its round.
func (m *monitor) leave(g *guest) {
	r := g.round
	g.round = nil
	if g.urgent {
		g.urgent = false
		if r.urgent--; r.urgent == 0 {
			close(r.served)
		}
	}
	if r.left--; r.left == 0 {
		m.each = m.now().Sub(r.begun) / time.Duration(r.asked)
		close(r.done)
	}
}

// store takes over what a call brought about a machine. One that is busy with
// something else and was asked before in a call that failed is what held that up:
// the abandoned call has its lock.
func (m *monitor) store(g *guest, asked libvirt.DomainStatsTypes, saw signs, err error) {
	now := m.now()
	hung := g.timeouts > 0
	suspect := g.suspect
	if suspect {
		g.suspect = false
		m.suspects--
	}
	switch {
	case err == nil && len(g.spare.vms) == 0: // it has gone meanwhile
		g.forget()
		return
	case err == nil && !interrupted(&g.spare, asked):
		m.took(g, asked, saw, now)
		g.last, g.spare = g.spare, g.last
		g.read, g.timeouts, g.notBefore = now, 0, time.Time{}
		g.health.Reason = Ready
	case err == nil && !hung && !suspect:
		m.bridge(g, asked, now)
		g.last, g.spare = g.spare, g.last
		g.read, g.health.Reason = now, Busy
	case err == nil:
		if !hung {
			g.forget()
			g.health.Reason = CallTimeout
			g.health.Abandoned++
		}
		g.last, g.spare = g.spare, g.last
		g.read = now
		g.timeouts++
		g.notBefore = now.Add(quarantine(g.timeouts, m.limit))
	case reasonOf(err) == CallTimeout:
		g.forget()
		g.health.Reason = CallTimeout
		g.health.Abandoned++
		m.state.Abandoned++
		g.timeouts++
		g.notBefore = now.Add(quarantine(g.timeouts, m.limit))
	default:
		g.forget()
		g.health.Reason = reasonOf(err)
	}
	switch {
	case g.timeouts > 0 && !hung:
		m.hung++
		m.log.Warn("QEMU does not answer", "source", m.state.Source, "vm", clip(g.ref.name), "after", m.limit.String())
	case g.timeouts == 0 && hung:
		m.hung--
		m.log.Info("QEMU answers again", "source", m.state.Source, "vm", clip(g.ref.name))
	}
}

// interrupted reports whether libvirt left out what needs the machine's job
// lock, although the machine runs: it tells nothing of memory then that QEMU
// would have to be asked for, nor of any disk.
func interrupted(r *reading, asked libvirt.DomainStatsTypes) bool {
	vm := &r.vms[0]
	switch {
	case r.refs[0].number == inactive:
		return false
	case asked&libvirt.DomainStatsBalloon != 0:
		return !vm.Memory.Resident.Set
	case asked&libvirt.DomainStatsBlock != 0 && len(vm.Blocks) > 0:
		return !slices.ContainsFunc(vm.Blocks, func(disk Block) bool { return disk.Read.Requests.Set })
	}
	return false
}
