package qemu

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketPair returns both ends of a connection, the first as connections use it.
func socketPair(t *testing.T) (ours *socket, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		if ends[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close() // the connection has a copy
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return newSocket(ends[0]).(*socket), ends[1]
}

func TestSocketTakesMoreThanThereIsRoomFor(t *testing.T) {
	ours, theirs := socketPair(t)
	sent := bytes.Repeat([]byte("all that is written arrives, in order\n"), 100_000)
	done := make(chan error, 1)
	go func() {
		n, err := ours.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		done <- errors.Join(err, ours.Close())
	}()
	got, err := io.ReadAll(theirs)
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes arrived of %d, or others", len(got), len(sent))
	}
}

func TestSocketReadsWhatIsThere(t *testing.T) {
	ours, theirs := socketPair(t)
	buffer := make([]byte, 4)
	if n, err := ours.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing into nothing: %d, %v", n, err)
	}
	go func() {
		time.Sleep(20 * time.Millisecond) // it has to be waited for
		_, _ = theirs.Write([]byte("abcdef"))
		_ = theirs.Close()
	}()
	for _, want := range []string{"abcd", "ef"} {
		if n, err := ours.Read(buffer); err != nil || string(buffer[:n]) != want {
			t.Errorf("%q, %v; want %q", buffer[:n], err, want)
		}
	}
	if n, err := ours.Read(buffer); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

func TestSocketFails(t *testing.T) {
	much := make([]byte, 8<<20)
	for _, test := range []struct {
		name    string
		prepare func(*socket, net.Conn) error
		do      func(*socket, []byte) (int, error)
		err     error
	}{
		{"nothing comes in time", func(s *socket, _ net.Conn) error { return s.SetDeadline(time.Now().Add(time.Millisecond)) }, (*socket).Read, os.ErrDeadlineExceeded},
		{"nobody reads in time", func(s *socket, _ net.Conn) error { return s.SetDeadline(time.Now().Add(time.Millisecond)) }, (*socket).Write, os.ErrDeadlineExceeded},
		{"the other end is gone", func(_ *socket, c net.Conn) error { return c.Close() }, (*socket).Write, unix.EPIPE},
		{"this end is closed: read", func(s *socket, _ net.Conn) error { return s.Close() }, (*socket).Read, net.ErrClosed},
		{"this end is closed: write", func(s *socket, _ net.Conn) error { return s.Close() }, (*socket).Write, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			ours, theirs := socketPair(t)
			if err := test.prepare(ours, theirs); err != nil {
				t.Fatal(err)
			}
			if n, err := test.do(ours, much); !errors.Is(err, test.err) || n == len(much) {
				t.Errorf("%d bytes, %v; want %v", n, err, test.err)
			}
		})
	}
}

// TestSocketIsClosedWhileItIsReadFrom: a daemon that goes ends the calls to it.
func TestSocketIsClosedWhileItIsReadFrom(t *testing.T) {
	ours, _ := socketPair(t)
	done := make(chan error, 1)
	go func() {
		_, err := ours.Read(make([]byte, 1))
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
