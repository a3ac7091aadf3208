package qemu

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// daemon is a libvirt daemon, and what it takes to reach it.
type daemon struct {
	root   *hostfs.Root
	target target
	life   context.Context // its end closes every connection
}

// line is a connection to a daemon, made when it is needed and again when it
// is lost. It carries one call at a time.
type line struct {
	daemon *daemon
	conn   *connection // nil when there is none
}

// stats asks for groups of some domains, or of all if none is named. A kept
// connection that has died since the last call is replaced at once: the
// daemon may be back.
func (l *line) stats(groups libvirt.DomainStatsTypes, of []domainRef, deadline time.Time) ([]byte, error) {
	kept := l.conn != nil
	payload, err := l.ask(groups, of, deadline)
	if kept && lost(err) {
		payload, err = l.ask(groups, of, deadline)
	}
	return payload, err
}

func (l *line) ask(groups libvirt.DomainStatsTypes, of []domainRef, deadline time.Time) ([]byte, error) {
	if err := l.connect(deadline); err != nil {
		return nil, err
	}
	payload, err := l.conn.stats(groups, of, deadline)
	if err != nil && reasonOf(err) != CallRefused {
		l.close()
	}
	return payload, err
}

// connect opens the daemon. One of the system refuses to serve a session, and
// the other way round: then the other is asked for.
func (l *line) connect(deadline time.Time) error {
	if l.conn != nil {
		return nil
	}
	d := l.daemon
	ctx, cancel := context.WithDeadline(d.life, deadline)
	defer cancel()
	for i := 0; ; i++ {
		conn, drivers, err := dial(ctx, d.root, d.target)
		if err != nil {
			return err
		}
		if l.conn, err = open(d.life, conn, drivers[i], d.target.limit(), deadline); err == nil {
			return nil
		}
		err = errors.Join(err, conn.Close())
		var refused *callError
		if !errors.As(err, &refused) || i+1 == len(drivers) {
			return err
		}
	}
}

func (l *line) close() {
	if l.conn != nil {
		l.conn.close()
		l.conn = nil
	}
}

// reasonOf says in one word why a reading failed.
func reasonOf(err error) Reason {
	if err == nil {
		return Ready
	}
	var refused *callError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return CallTimeout
	case errors.Is(err, errBadReply):
		return BadReply
	case errors.Is(err, errAuthRequired):
		return AuthRequired
	case errors.As(err, &refused):
		return CallRefused
	case errors.Is(err, fs.ErrNotExist):
		return SocketMissing
	case errors.Is(err, fs.ErrPermission):
		return PermissionDenied
	case errors.Is(err, unix.ECONNREFUSED):
		return SocketRefused
	case lost(err):
		return ConnectionLost
	}
	return Failed
}

// lost reports whether the other end of a connection has gone.
func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
