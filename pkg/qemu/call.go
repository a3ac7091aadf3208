package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
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
	// maxReply is VIR_NET_MESSAGE_MAX: libvirt itself sends nothing larger.
	maxReply = 32 << 20
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
// call at a time.
type connection struct {
	conn   net.Conn
	serial uint32
	reply  bytes.Buffer // reused; a reply is valid until the next call
}

// open authenticates conn and opens the driver, read-only. On an error conn
// is left to the caller.
func open(ctx context.Context, conn net.Conn, driver string) (*connection, error) {
	c := &connection{conn: conn}
	offered, err := c.call(ctx, procAuthList, nil)
	if err != nil {
		return nil, fmt.Errorf("list authentications: %w", err)
	}
	kind, err := chooseAuth(offered)
	if err != nil {
		return nil, err
	}
	if kind == authPolkit {
		if _, err := c.call(ctx, procAuthPolkit, nil); err != nil {
			return nil, fmt.Errorf("authenticate through polkit: %w", err)
		}
	}
	args := binary.BigEndian.AppendUint32(nil, 1) // the name is there
	args = appendString(args, driver)
	args = binary.BigEndian.AppendUint32(args, uint32(libvirt.ConnectRo))
	if _, err := c.call(ctx, procConnectOpen, args); err != nil {
		return nil, fmt.Errorf("open %s: %w", driver, err)
	}
	return c, nil
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

// stats asks for groups of statistics of all domains in all states. NOWAIT
// leaves out what would wait for a domain that is busy with something else.
func (c *connection) stats(ctx context.Context, groups libvirt.DomainStatsTypes) ([]byte, error) {
	args := binary.BigEndian.AppendUint32(nil, 0) // no list: all domains
	args = binary.BigEndian.AppendUint32(args, uint32(groups))
	args = binary.BigEndian.AppendUint32(args, uint32(libvirt.ConnectGetAllDomainsStatsNowait))
	reply, err := c.call(ctx, procDomainStats, args)
	if err != nil {
		return nil, fmt.Errorf("get domain statistics: %w", err)
	}
	return reply, nil
}

// call makes one call and returns the payload of its reply. After any error
// but a *callError the connection is of no more use.
func (c *connection) call(ctx context.Context, proc uint32, args []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	// The end of ctx, in time or not, fails what is being read or written.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.serial++
	payload, err := c.exchange(proc, args)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return payload, err
}

func (c *connection) exchange(proc uint32, args []byte) ([]byte, error) {
	request := make([]byte, 0, headerSize+len(args))
	for _, word := range [...]uint32{uint32(headerSize + len(args)), program, programVersion, proc, typeCall, c.serial, statusOK} {
		request = binary.BigEndian.AppendUint32(request, word)
	}
	if _, err := c.conn.Write(append(request, args...)); err != nil {
		return nil, err
	}
	var head [headerSize]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, err
	}
	size, status, err := parseHeader(head, proc, c.serial)
	if err != nil {
		return nil, err
	}
	// The buffer grows with what arrives, not with what was announced.
	c.reply.Reset()
	if _, err := io.CopyN(&c.reply, c.conn, int64(size)); err != nil {
		return nil, err
	}
	if status == statusError {
		return nil, parseError(c.reply.Bytes())
	}
	return c.reply.Bytes(), nil
}

// parseHeader checks that a packet is the reply to a call, and returns the
// size of its payload and its status.
func parseHeader(head [headerSize]byte, proc, serial uint32) (size, status uint32, err error) {
	word := func(i int) uint32 { return binary.BigEndian.Uint32(head[4*i:]) }
	size, status = word(0), word(6)
	switch {
	case size < headerSize || size > maxReply:
		return 0, 0, fmt.Errorf("%w: a packet of %d bytes", errBadReply, size)
	case word(1) != program || word(2) != programVersion || word(3) != proc || word(4) != typeReply || word(5) != serial:
		return 0, 0, fmt.Errorf("%w: a packet that answers no call", errBadReply)
	case status != statusOK && status != statusError:
		return 0, 0, fmt.Errorf("%w: status %d", errBadReply, status)
	}
	return size - headerSize, status, nil
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

// appendString appends an XDR string.
func appendString(data []byte, s string) []byte {
	data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
	data = append(data, s...)
	return append(data, make([]byte, -len(s)&3)...)
}
