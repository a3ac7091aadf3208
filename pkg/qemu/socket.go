package qemu

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket reads and writes without telling Go's scheduler of each system call.
// They do not block, for the socket does not; and of an agent that was idle the
// first one that is told of wakes a thread of the runtime, sysmon, to see whether it
// does. One goroutine at a time may use it.
type socket struct {
	net.Conn
	raw         syscall.RawConn
	read, write func(fd uintptr) bool

	rest []byte // of what is read into or written
	err  error
}

// newSocket returns conn itself if it is none.
func newSocket(conn net.Conn) net.Conn {
	source, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := source.SyscallConn()
	if err != nil {
		return conn
	}
	s := &socket{Conn: conn, raw: raw}
	s.read = func(fd uintptr) bool { return s.once(rawRead, int(fd)) }
	s.write = func(fd uintptr) bool {
		for s.once(rawWrite, int(fd)) {
			if s.err != nil || len(s.rest) == 0 {
				return true
			}
		}
		return false
	}
	return s
}

// once makes a system call, and returns false if it would block.
func (s *socket) once(call func(fd int, p []byte) (int, error), fd int) bool {
	for {
		n, err := call(fd, s.rest)
		switch {
		case err == nil:
			s.rest = s.rest[n:]
			return true
		case errors.Is(err, unix.EAGAIN):
			return false
		case !errors.Is(err, unix.EINTR):
			s.err = err
			return true
		}
	}
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := s.do(s.raw.Read, s.read, p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return s.do(s.raw.Write, s.write, p)
}

func (s *socket) do(wait func(func(uintptr) bool) error, once func(uintptr) bool, p []byte) (int, error) {
	s.rest, s.err = p, nil
	err := wait(once)
	n := len(p) - len(s.rest)
	s.rest = nil
	if err == nil {
		err = s.err
	}
	return n, err
}
