package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

// drain is how long a command that has ended may leave its output open: what
// it put into the background does not keep it from being reported.
const drain = 2 * time.Second

// command is one command of the host's, from start to exit status.
type command struct {
	id   int
	spec wire.Run
	out  *events

	// stdin carries the input away from the serving loop, which must go on
	// when a command does not read. It is closed at the end of the input.
	stdin chan []byte

	mu     sync.Mutex
	pid    int // 0 until started and after the end
	killed bool
}

func newCommand(id int, spec wire.Run, out *events) *command {
	return &command{id: id, spec: spec, out: out, stdin: make(chan []byte, 256)}
}

// tell passes a later request on to the command.
func (c *command) tell(r wire.Request) {
	switch {
	case r.EOF:
		close(c.stdin)
	case len(r.Stdin) > 0:
		c.stdin <- r.Stdin
	case r.Kill:
		c.kill()
	}
}

// kill ends the command's process group, which is also its session when it
// has a terminal.
func (c *command) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	if c.pid != 0 {
		// It may have ended by itself just now.
		_ = unix.Kill(-c.pid, unix.SIGKILL)
	}
}

func (c *command) run() {
	end := wire.Event{ID: c.id}
	code, err := c.execute()
	if err != nil {
		end.Error = err.Error()
	} else {
		end.Exit = &code
	}
	if err := c.out.send(end); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}

func (c *command) execute() (int, error) {
	cmd := exec.Command(c.spec.Argv[0], c.spec.Argv[1:]...)
	cmd.Dir = c.spec.Dir
	cmd.Env = append(environment(), c.spec.Env...)
	cmd.WaitDelay = drain
	if c.spec.TTY != nil {
		return c.onTerminal(cmd)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout = stream(func(b []byte) error { return c.out.send(wire.Event{ID: c.id, Stdout: b}) })
	cmd.Stderr = stream(func(b []byte) error { return c.out.send(wire.Event{ID: c.id, Stderr: b}) })
	if c.spec.Stdin {
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return 0, fmt.Errorf("make the input: %w", err)
		}
		go c.feed(stdin)
	}
	if err := c.start(cmd); err != nil {
		return 0, err
	}
	return c.wait(cmd)
}

// onTerminal runs cmd as the leader of a session on a pseudo terminal.
func (c *command) onTerminal(cmd *exec.Cmd) (int, error) {
	master, slave, err := openTerminal(*c.spec.TTY)
	if err != nil {
		return 0, err
	}
	defer func() { _ = master.Close() }()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = c.start(cmd)
	_ = slave.Close() // the command has its own
	if err != nil {
		return 0, err
	}
	go c.feed(master)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		out := stream(func(b []byte) error { return c.out.send(wire.Event{ID: c.id, Stdout: b}) })
		// A terminal ends with EIO when its last user has gone.
		_, _ = io.Copy(out, master)
	}()
	code, err := c.wait(cmd)
	select {
	case <-copied:
	case <-time.After(drain):
	}
	return code, err
}

// feed hands the input on. A command that ends early leaves the rest unread.
func (c *command) feed(stdin io.WriteCloser) {
	var failed error
	for chunk := range c.stdin {
		if failed == nil {
			_, failed = stdin.Write(chunk)
		}
	}
	// The end of a terminal's input is its user's control-D, not a close.
	if c.spec.TTY == nil {
		_ = stdin.Close()
	}
}

func (c *command) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed {
		return errors.New("killed before it was started")
	}
	if err := cmd.Start(); err != nil {
		return err // names the program
	}
	c.pid = cmd.Process.Pid
	return nil
}

// wait returns the exit status as a shell would: 128 and the signal's number
// for a command that was killed.
func (c *command) wait(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	c.mu.Lock()
	c.pid = 0
	c.mu.Unlock()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, fmt.Errorf("wait for %s: %w", c.spec.Argv[0], err)
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
