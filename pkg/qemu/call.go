package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// The remote protocol of libvirt (src/remote/remote_protocol.x, and
// src/rpc/virnetprotocol.x for the framing). go-libvirt speaks it too, but its
// calls know no deadline, its reader trusts lengths and serial numbers, and it
// always asks for write access; so the few calls made here are our own.
const (
	program        = 0x20008086
	programVersion = 1

	procConnectOpen = 1
	procAuthList    = 66
	procAuthPolkit  = 70
	procDomainStats = 344 // REMOTE_PROC_CONNECT_GET_ALL_DOMAIN_STATS

	typeCall, typeReply   = 0, 1
	statusOK, statusError = 0, 1

	authNone, authPolkit = 0, 2

	headerSize = 28
	// maxReply is an eighth of VIR_NET_MESSAGE_MAX, what libvirt could send at
	// most: room for the interfaces of thousands of domains. Several daemons
	// that lie, read at once, must not cost a host its memory.
	maxReply = 4 << 20
	// maxDomainReply is for one domain, of which libvirt sends 4096 parameters
	// at most.
	maxDomainReply = 1 << 20
)

var (
	errBadReply     = errors.New("reply breaks the libvirt protocol")
	errAuthRequired = errors.New("the daemon wants a kind of authentication that nodeagent does not have")
)

// callError is the daemon's own answer that a call failed.
type callError struct {
	code    libvirt.ErrorNumber
	message string
}

func (e *callError) Error() string {
	return fmt.Sprintf("libvirt: %s (error %d)", clip(e.message), e.code)
}

// connection is an open, read-only connection to a daemon. It carries one
// call at a time, and its memory is used again by the next one.
type connection struct {
	conn    net.Conn
	limit   uint32 // of a packet's size
	serial  uint32
	request []byte
	packet  []byte // as far as it has arrived
	forget  func() bool
}

// open authenticates conn and opens the driver, read-only. From then on the
// connection is closed when life ends. On an error conn is left to the caller.
func open(life context.Context, conn net.Conn, driver string, limit uint32, deadline time.Time) (*connection, error) {
	c := &connection{conn: newSocket(conn), limit: limit, forget: context.AfterFunc(life, func() { _ = conn.Close() })}
	err := c.greet(driver, deadline)
	if err != nil {
		c.forget()
		return nil, err
	}
	return c, nil
}

func (c *connection) greet(driver string, deadline time.Time) error {
	offered, err := c.call(procAuthList, nil, deadline)
	if err != nil {
		return fmt.Errorf("list authentications: %w", err)
	}
	kind, err := chooseAuth(offered)
	if err != nil {
		return err
	}
	if kind == authPolkit {
		if _, err := c.call(procAuthPolkit, nil, deadline); err != nil {
			return fmt.Errorf("authenticate through polkit: %w", err)
		}
	}
	args := binary.BigEndian.AppendUint32(nil, 1) // the name is there
	args = appendString(args, driver)
	args = binary.BigEndian.AppendUint32(args, uint32(libvirt.ConnectRo))
	if _, err := c.call(procConnectOpen, args, deadline); err != nil {
		return fmt.Errorf("open %s: %w", driver, err)
	}
	return nil
}

func (c *connection) close() {
	c.forget()
	_ = c.conn.Close() // nothing is lost with a connection that only reads
}

// chooseAuth reads the reply to REMOTE_PROC_AUTH_LIST, and returns the first
// kind that needs no secret.
func chooseAuth(offered []byte) (uint32, error) {
	w := walker{data: offered}
	for n := w.u32(); n > 0 && !w.failed; n-- {
		if kind := w.u32(); !w.failed && (kind == authNone || kind == authPolkit) {
			return kind, nil
		}
	}
	if w.failed {
		return 0, fmt.Errorf("list authentications: %w", errBadReply)
	}
	return 0, errAuthRequired
}

// stats asks for groups of statistics: of some domains, or of all in all states
// if none is named. NOWAIT leaves out what would wait for a domain that is
// busy with something else. The reply is valid until the next call.
func (c *connection) stats(groups libvirt.DomainStatsTypes, of []domainRef, deadline time.Time) ([]byte, error) {
	args, limit := c.begin(), c.limit
	if len(of) > 0 {
		limit = min(limit, uint32(len(of))*maxDomainReply)
	}
	args = binary.BigEndian.AppendUint32(args, uint32(len(of)))
	for i := range of {
		args = appendDomain(args, &of[i])
	}
	args = binary.BigEndian.AppendUint32(args, uint32(groups))
	args = binary.BigEndian.AppendUint32(args, uint32(libvirt.ConnectGetAllDomainsStatsNowait))
	reply, err := c.exchange(procDomainStats, args, limit, deadline)
	if err != nil {
		return nil, fmt.Errorf("get domain statistics: %w", err)
	}
	return reply, nil
}

// call makes one call and returns the payload of its reply. After any error
// but a *callError the connection is of no more use.
func (c *connection) call(proc uint32, args []byte, deadline time.Time) ([]byte, error) {
	return c.exchange(proc, append(c.begin(), args...), c.limit, deadline)
}

// begin returns the request's memory with room for the header.
func (c *connection) begin() []byte { return append(c.request[:0], make([]byte, headerSize)...) }

// exchange sends a request, whose header it fills in, and waits for the reply.
func (c *connection) exchange(proc uint32, request []byte, limit uint32, deadline time.Time) ([]byte, error) {
	c.request = request
	c.serial++
	for i, word := range [...]uint32{uint32(len(request)), program, programVersion, proc, typeCall, c.serial, statusOK} {
		binary.BigEndian.PutUint32(request[4*i:], word)
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	if err := c.fill(headerSize); err != nil {
		return nil, err
	}
	size, status, err := parseHeader([headerSize]byte(c.packet), proc, c.serial, limit)
	if err != nil {
		return nil, err
	}
	if err := c.fill(int(size)); err != nil {
		return nil, err
	}
	if len(c.packet) > int(size) {
		return nil, fmt.Errorf("%w: more than the reply", errBadReply)
	}
	payload := c.packet[headerSize:]
	c.packet = c.packet[:0]
	if status == statusError {
		return nil, parseError(payload)
	}
	return payload, nil
}

// fill reads until the packet has size bytes, or more if they are there. The
// memory grows with what arrives, not with what was announced.
func (c *connection) fill(size int) error {
	for len(c.packet) < size {
		if len(c.packet) == cap(c.packet) {
			c.packet = slices.Grow(c.packet, max(len(c.packet), 4<<10))
		}
		n, err := c.conn.Read(c.packet[len(c.packet):cap(c.packet)])
		c.packet = c.packet[:len(c.packet)+n]
		if err != nil && len(c.packet) < size {
			if errors.Is(err, io.EOF) && len(c.packet) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// parseHeader checks that a packet is the reply to a call, and returns its
// size and its status.
func parseHeader(head [headerSize]byte, proc, serial, limit uint32) (size, status uint32, err error) {
	word := func(i int) uint32 { return binary.BigEndian.Uint32(head[4*i:]) }
	size, status = word(0), word(6)
	switch {
	case size < headerSize || size > limit:
		return 0, 0, fmt.Errorf("%w: a packet of %d bytes", errBadReply, size)
	case word(1) != program || word(2) != programVersion || word(3) != proc || word(4) != typeReply || word(5) != serial:
		return 0, 0, fmt.Errorf("%w: a packet that answers no call", errBadReply)
	case status != statusOK && status != statusError:
		return 0, 0, fmt.Errorf("%w: status %d", errBadReply, status)
	}
	return size, status, nil
}

// parseError reads a remote_error.
func parseError(payload []byte) error {
	w := walker{data: payload}
	code := w.u32()
	w.u32() // the part of libvirt that failed
	var message []byte
	if w.u32() != 0 {
		message = w.bytes()
	}
	if w.failed {
		return fmt.Errorf("%w: an unreadable error", errBadReply)
	}
	return &callError{code: libvirt.ErrorNumber(code), message: string(message)}
}

// appendDomain appends a remote_nonnull_domain.
func appendDomain(data []byte, of *domainRef) []byte {
	data = appendString(data, of.name)
	data = append(data, of.uuid[:]...)
	return binary.BigEndian.AppendUint32(data, of.number)
}

// appendString appends an XDR string.
func appendString(data []byte, s string) []byte {
	data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
	data = append(data, s...)
	for range -len(s) & 3 {
		data = append(data, 0)
	}
	return data
}
