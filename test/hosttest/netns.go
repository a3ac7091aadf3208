package hosttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Space is a network namespace of a test's own. No process lives in it: it
// ends with the test, or with the test process, however that one ends.
type Space struct {
	Path string // to enter it by, while the test runs

	t    testing.TB
	file *os.File
}

// NewSpace makes a network namespace in which only lo is, and is up.
func NewSpace(t testing.TB) *Space {
	t.Helper()
	Need(t, Netns, spaceMissing())
	file, err := newSpace()
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = file.Close() })
	s := &Space{Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), t: t, file: file}
	s.IP("link set lo up")
	return s
}

// newSpace makes a namespace on a thread that ends with it.
func newSpace() (file *os.File, err error) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
	}()
	<-made
	return file, err
}

func spaceMissing() error {
	if os.Getuid() != 0 {
		return errors.New("it needs root")
	}
	for _, tool := range []string{"ip", "bridge"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}

// Inside makes a call on a thread that is in the namespace: sockets that it
// opens and programs that it starts are in there too.
func (s *Space) Inside(call func()) {
	s.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			call()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		s.t.Fatalf("enter a network namespace: %v", err)
	}
}

// Try runs a command line in the namespace.
func (s *Space) Try(line string) (string, error) {
	s.t.Helper()
	var out []byte
	var err error
	words := strings.Fields(line)
	s.Inside(func() { out, err = exec.Command(words[0], words[1:]...).CombinedOutput() })
	return string(out), err
}

// Run runs a command line in the namespace and returns its output.
func (s *Space) Run(line string) string {
	s.t.Helper()
	out, err := s.Try(line)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// IP runs ip with the words of a line.
func (s *Space) IP(line string) string {
	s.t.Helper()
	return s.Run("ip " + line)
}

// Dump is what ip shows of all links, less what changes by itself.
func (s *Space) Dump() string {
	s.t.Helper()
	return s.IP("-d link") + s.IP("-o -4 addr") + s.IP("-4 route") + s.Run("bridge vlan")
}
