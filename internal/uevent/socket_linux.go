package uevent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// kernelGroup is the multicast group to which the kernel sends; udev's
	// messages are in another.
	kernelGroup = 1
	// initialUserNamespace is the first user namespace of every kernel
	// (PROC_USER_INIT_INO in include/linux/proc_ns.h).
	initialUserNamespace = "user:[4026531837]"
)

// ErrNamespace says that no event will ever arrive: the kernel sends them to
// the network namespaces of the initial user namespace only.
var ErrNamespace = errors.New("this process is not in the initial user namespace, to which alone the kernel sends uevents")

// Socket receives the kernel's events.
type Socket struct {
	file *os.File
	conn syscall.RawConn
}

// Listen opens a socket; events from now on wait in it (man 7 netlink,
// NETLINK_KOBJECT_UEVENT). No privilege is needed.
func Listen() (*Socket, error) {
	if namespace, err := os.Readlink("/proc/self/ns/user"); err != nil {
		return nil, fmt.Errorf("listen for uevents: %w", err)
	} else if namespace != initialUserNamespace {
		return nil, fmt.Errorf("listen for uevents: %w", ErrNamespace)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen for uevents: %w", err)
	}
	file := os.NewFile(uintptr(fd), "uevents")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for uevents: %w", err), file.Close())
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for uevents: %w", err), file.Close())
	}
	return &Socket{file: file, conn: conn}, nil
}

// Close ends a Receive that waits.
func (s *Socket) Close() error { return s.file.Close() }

// Receive waits for the next event of the kernel. What is not the kernel's, or
// not understood, is passed over.
func (s *Socket) Receive() (Event, error) {
	message := make([]byte, maxMessage)
	for {
		n, from, err := s.receive(message)
		if errors.Is(err, unix.ENOBUFS) {
			return Event{}, nil
		}
		if err != nil {
			return Event{}, fmt.Errorf("receive uevent: %w", err)
		}
		sender, isNetlink := from.(*unix.SockaddrNetlink)
		if !isNetlink || sender.Pid != 0 {
			continue // a process that plays the kernel
		}
		if event, err := parse(message[:n]); err == nil {
			return event, nil
		}
	}
}

func (s *Socket) receive(message []byte) (n int, from unix.Sockaddr, err error) {
	waiting := s.conn.Read(func(fd uintptr) bool {
		for {
			n, from, err = unix.Recvfrom(int(fd), message, 0)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waiting != nil {
		return 0, nil, os.ErrClosed // without a deadline there is no other cause
	}
	return n, from, err
}
