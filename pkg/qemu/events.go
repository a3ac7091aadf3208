package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// The calls and messages by which a daemon tells of its domains
// (remote_protocol.x). Messages come unasked, on a connection that has
// registered for them.
const (
	procDomainXML     = 14  // REMOTE_PROC_DOMAIN_GET_XML_DESC
	procRegisterEvent = 316 // REMOTE_PROC_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY

	procLifecycle      = 318 // REMOTE_PROC_DOMAIN_EVENT_CALLBACK_LIFECYCLE, and so on
	procBalloonChange  = 331
	procDeviceRemoved  = 333
	procAgentLifecycle = 348
	procDeviceAdded    = 354
	procMigrationPass  = 359 // REMOTE_PROC_DOMAIN_EVENT_CALLBACK_MIGRATION_ITERATION
	procMetadataChange = 379

	typeMessage = 2

	// maxEvent bounds one message: an event names a domain and a device.
	maxEvent = 64 << 10
	// maxEvents bounds the messages that are read in a second. A daemon that
	// has more to tell waits.
	maxEvents = 500
)

// registeredEvents are those that change what a machine is called, has, or
// may use of its memory, or whether its agent is there, or it moves.
var registeredEvents = [...]libvirt.DomainEventID{
	libvirt.DomainEventIDLifecycle, libvirt.DomainEventIDDeviceAdded, libvirt.DomainEventIDDeviceRemoved,
	libvirt.DomainEventIDAgentLifecycle, libvirt.DomainEventIDMetadataChange, libvirt.DomainEventIDBalloonChange,
	libvirt.DomainEventIDMigrationIteration,
}

// domain reads a domain (remote_nonnull_domain).
func (w *walker) domain() domainRef {
	ref := domainRef{name: string(w.bytes())}
	copy(ref.uuid[:], w.take(len(ref.uuid)))
	ref.number = w.u32()
	return ref
}

// domainEvent is what a message says about a domain.
type domainEvent struct {
	domain  domainRef
	gone    bool // the domain is no longer defined
	xml     bool // its XML has changed
	balloon bool // so has what the balloon leaves to the guest
	moves   bool // a pass of its migration to elsewhere has begun
	agent   bool // the guest agent has come or gone:
	state   Num  // as Agent of VM
}

// decodeEvent reads the payload of a message. Every one begins with the number
// of the registration and the domain.
func decodeEvent(proc uint32, payload []byte) (domainEvent, error) {
	w := walker{data: payload}
	w.u32()
	e := domainEvent{domain: w.domain()}
	switch proc {
	case procLifecycle:
		switch libvirt.DomainEventType(w.u32()) {
		case libvirt.DomainEventUndefined:
			e.gone = true
		case libvirt.DomainEventStopped:
			e.xml, e.agent = true, true
		case libvirt.DomainEventDefined, libvirt.DomainEventStarted:
			e.xml = true
		default: // its state says the rest
		}
	case procAgentLifecycle:
		e.agent = true
		switch libvirt.ConnectDomainEventAgentLifecycleState(w.u32()) {
		case libvirt.ConnectDomainEventAgentLifecycleStateConnected:
			e.state = Some(1)
		case libvirt.ConnectDomainEventAgentLifecycleStateDisconnected:
			e.state = Some(0)
		default: // unknown
		}
	case procDeviceAdded, procDeviceRemoved, procMetadataChange:
		e.xml = true
	case procBalloonChange:
		e.balloon = true
	case procMigrationPass:
		e.moves = true
	}
	if w.failed {
		return domainEvent{}, fmt.Errorf("%w: an unreadable event", errBadReply)
	}
	return e, nil
}

// definition asks for the XML of a domain, and reads it.
func (c *connection) definition(domain *domainRef, deadline time.Time) (*Definition, error) {
	args := appendDomain(c.begin(), domain)
	reply, err := c.exchange(procDomainXML, binary.BigEndian.AppendUint32(args, 0), min(c.limit, maxXML), deadline)
	if err != nil {
		return nil, fmt.Errorf("get domain XML: %w", err)
	}
	w := walker{data: reply}
	text := w.bytes()
	if w.failed {
		return nil, fmt.Errorf("get domain XML: %w", errBadReply)
	}
	return parseDefinition(text)
}

// listener is a connection on which a daemon tells of events.
type listener struct {
	*connection
	heard func(domainEvent)
	head  [headerSize]byte
	body  []byte // reused
}

// listen registers for events on an open connection, which it takes over. The
// events that a daemon does not offer are left out; without the lifecycle
// there is nothing to listen to.
func listen(c *connection, heard func(domainEvent), deadline time.Time) (*listener, error) {
	l := &listener{connection: c, heard: heard}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	for i, id := range registeredEvents {
		var refused *callError
		if err := l.register(id); err != nil && (i == 0 || !errors.As(err, &refused)) {
			return nil, fmt.Errorf("register for domain events: %w", err)
		}
	}
	return l, c.conn.SetDeadline(time.Time{})
}

// register makes one registration. Events of those before may come first.
func (l *listener) register(id libvirt.DomainEventID) error {
	l.serial++
	request := make([]byte, 0, headerSize+8)
	for _, word := range [...]uint32{headerSize + 8, program, programVersion, procRegisterEvent, typeCall, l.serial, statusOK} {
		request = binary.BigEndian.AppendUint32(request, word)
	}
	request = binary.BigEndian.AppendUint32(request, uint32(id))
	if _, err := l.conn.Write(binary.BigEndian.AppendUint32(request, 0)); err != nil { // no domain: all
		return err
	}
	for {
		message, err := l.read()
		switch {
		case err != nil:
			return err
		case message:
			continue
		}
		_, status, err := parseHeader(l.head, procRegisterEvent, l.serial, l.limit)
		if err == nil && status == statusError {
			err = parseError(l.body)
		}
		return err
	}
}

// read takes one packet, and passes it on if it is an event. Messages of other
// kinds mean nothing here.
func (l *listener) read() (message bool, err error) {
	if _, err := io.ReadFull(l.conn, l.head[:]); err != nil {
		return false, err
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(l.head[4*i:]) }
	if word(0) < headerSize || word(0) > headerSize+maxEvent || word(1) != program {
		return false, fmt.Errorf("%w: an event of %d bytes", errBadReply, word(0))
	}
	l.body = slices.Grow(l.body[:0], int(word(0)-headerSize))[:word(0)-headerSize]
	if _, err := io.ReadFull(l.conn, l.body); err != nil {
		return false, err
	}
	if word(4) != typeMessage {
		return false, nil
	}
	switch word(3) {
	case procLifecycle, procAgentLifecycle, procDeviceAdded, procDeviceRemoved, procMetadataChange, procBalloonChange, procMigrationPass:
		e, err := decodeEvent(word(3), l.body)
		if err != nil {
			return false, err
		}
		l.heard(e)
	}
	return true, nil
}

// follow passes on events until the connection ends, or life.
func (l *listener) follow(life context.Context) error {
	for {
		second := time.NewTimer(time.Second)
		for range maxEvents {
			message, err := l.read()
			if err == nil && !message {
				err = fmt.Errorf("%w: a packet that is no event", errBadReply)
			}
			if err != nil {
				second.Stop()
				return err
			}
		}
		// That many came in less than a second, or in a long time.
		select {
		case <-second.C:
		case <-life.Done():
			second.Stop()
			return life.Err()
		}
	}
}
