package qemu

import (
	"encoding/binary"
	"net"

	"github.com/digitalocean/go-libvirt"
)

// fakeControl is the side of a fakeDaemon that tells what its domains are.
type fakeControl struct {
	xml       map[string]string // by name of the domain; one without has gone
	held      map[string]bool   // domains whose XML does not come
	deaf      bool              // the daemon offers no events
	driver    string            // the one it serves; empty: any
	reads     map[string]int    // calls received for XML, by domain
	listeners map[net.Conn]int  // and their registrations
}

// refuses reports whether a daemon does not serve a driver.
func (f *fakeControl) refuses(args []byte) bool {
	w := walker{data: args}
	w.u32()
	return f.driver != "" && string(w.bytes()) != f.driver
}

func isControl(proc uint32) bool {
	return proc == procDomainXML || proc == procRegisterEvent
}

func (d *fakeDaemon) replyControl(conn net.Conn, head [headerSize]byte, proc uint32, args []byte) error {
	d.mu.Lock()
	payload, status, held := d.handleControl(conn, proc, args)
	silent := d.mode == hangOpen || held
	d.mu.Unlock()
	if silent {
		<-d.release
		return errHangUp
	}
	return writePacket(conn, head, typeReply, status, payload)
}

func writePacket(conn net.Conn, head [headerSize]byte, kind, status uint32, payload []byte) error {
	binary.BigEndian.PutUint32(head[:], uint32(headerSize+len(payload)))
	binary.BigEndian.PutUint32(head[16:], kind)
	binary.BigEndian.PutUint32(head[24:], status)
	_, err := conn.Write(append(head[:], payload...))
	return err
}

// handleControl carries out a call; d.mu is held.
func (d *fakeDaemon) handleControl(conn net.Conn, proc uint32, args []byte) (payload []byte, status uint32, held bool) {
	u32 := binary.BigEndian.AppendUint32
	switch proc {
	case procDomainXML:
		w := walker{data: args}
		name := w.domain().name
		if d.control.reads == nil {
			d.control.reads = make(map[string]int)
		}
		d.control.reads[name]++
		text, found := d.control.xml[name]
		if !found {
			return refusal(libvirt.ErrNoDomain, "Domain not found"), statusError, false
		}
		return appendString(nil, text), statusOK, d.control.held[name]
	default:
		if d.control.deaf {
			return refusal(libvirt.ErrNoSupport, "this function is not supported"), statusError, false
		}
		if d.control.listeners == nil {
			d.control.listeners = make(map[net.Conn]int)
		}
		d.control.listeners[conn]++
		return u32(nil, uint32(d.control.listeners[conn])), statusOK, false
	}
}

// refusal is a remote_error.
func refusal(code libvirt.ErrorNumber, text string) []byte {
	u32 := binary.BigEndian.AppendUint32
	return append(appendString(u32(u32(u32(nil, uint32(code)), 10), 1), text), make([]byte, 16)...)
}

func (d fakeDomain) ref() domainRef { return domainRef{name: d.name, uuid: d.uuid, number: 1} }

// emit tells all who listen of an event: the domain, and the numbers and
// strings that follow it.
func (d *fakeDaemon) emit(proc uint32, domain domainRef, details ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	payload := appendDomain(binary.BigEndian.AppendUint32(nil, 7), &domain)
	for _, detail := range details {
		switch detail := detail.(type) {
		case int:
			payload = binary.BigEndian.AppendUint32(payload, uint32(detail))
		case string:
			payload = appendString(payload, detail)
		}
	}
	var head [headerSize]byte
	for i, word := range []uint32{0, program, programVersion, proc} {
		binary.BigEndian.PutUint32(head[4*i:], word)
	}
	for conn, registrations := range d.control.listeners {
		if registrations == len(registeredEvents) {
			_ = writePacket(conn, head, typeMessage, statusOK, payload) // it may have gone
		}
	}
}

// readsOfWeb counts how often the XML of web was asked for.
func (d *fakeDaemon) readsOfWeb() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.control.reads["web"]
}
