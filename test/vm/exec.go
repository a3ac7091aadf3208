package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

const (
	// execTimeout bounds an Exec whose context has no deadline.
	execTimeout = 2 * time.Minute
	// grace is how long the guest may take to end a command that it was
	// told to kill, before it counts as hung.
	grace = 20 * time.Second
)

// Result is what a script printed, and its exit status.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs a bash script in the guest, as root and in /share. The script
// ends at the first command that fails. When ctx ends first, the script is
// killed; QEMU is killed when the guest does not even do that.
func (m *Machine) Exec(ctx context.Context, script string) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, execTimeout)
		defer cancel()
	}
	var stdout, stderr bytes.Buffer
	code, err := m.Run(ctx, Command{Argv: Script(script), Stdout: &stdout, Stderr: &stderr})
	return Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}, err
}

// Script returns the command that runs a script as Exec does.
func Script(script string) []string {
	return []string{"/bin/bash", "-e", "-o", "pipefail", "-c", script}
}

// Command is a program to run in the guest.
type Command struct {
	Argv []string
	Dir  string   // /share by default
	Env  []string // besides the guest's own
	// Stdin may be nil: no input.
	Stdin io.Reader
	// Stdout and Stderr are written while the program runs; nil discards.
	Stdout, Stderr io.Writer
	// TTY, when set, gives the program a terminal, which also takes its
	// standard error to Stdout.
	TTY *wire.Size
}

// Run runs a command in the guest, and ends it when ctx ends. It returns the
// exit status: 128 and a signal's number for what was killed.
func (m *Machine) Run(ctx context.Context, c Command) (int, error) {
	if c.Dir == "" {
		c.Dir = wire.ShareDir
	}
	c.Stdout, c.Stderr = orDiscard(c.Stdout), orDiscard(c.Stderr)
	id, events := m.session.begin()
	defer m.session.end(id)
	start := wire.Run{Argv: c.Argv, Dir: c.Dir, Env: c.Env, Stdin: c.Stdin != nil, TTY: c.TTY}
	if m.session.send(wire.Request{ID: id, Run: &start}) != nil {
		return 0, m.stopped(c, m.whyStopped()) // nothing else closes the port
	}
	if c.Stdin != nil {
		go m.feed(id, c.Stdin)
	}
	code, err := m.follow(ctx, c, events)
	if ctx.Err() == nil || err == nil {
		return code, err
	}
	return m.end(ctx, id, c, events)
}

// follow passes the command's output on until its end or that of ctx.
func (m *Machine) follow(ctx context.Context, c Command, events <-chan wire.Event) (int, error) {
	for {
		select {
		case event := <-events:
			if _, err := c.Stdout.Write(event.Stdout); err != nil {
				return 0, fmt.Errorf("pass on standard output: %w", err)
			}
			if _, err := c.Stderr.Write(event.Stderr); err != nil {
				return 0, fmt.Errorf("pass on standard error: %w", err)
			}
			switch {
			case event.Exit != nil:
				return *event.Exit, nil
			case event.Error != "":
				return 0, fmt.Errorf("run %q in the guest: %s", c.Argv, event.Error)
			}
		case <-m.down:
			return 0, m.stopped(c, m.whyStopped())
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// end kills a command whose time is over, or else the machine.
func (m *Machine) end(over context.Context, id int, c Command, events <-chan wire.Event) (int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(over), m.grace)
	defer cancel()
	// Killing QEMU also ends a send that the guest does not take.
	stop := context.AfterFunc(ctx, m.kill)
	defer stop()
	err := m.session.send(wire.Request{ID: id, Kill: true})
	if err == nil {
		_, err = m.follow(ctx, c, events)
	}
	if ctx.Err() != nil {
		m.kill()
		return 0, m.stopped(c, fmt.Errorf("%w, and the guest hangs: QEMU was killed", context.Cause(over)))
	}
	if err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("run %q in the guest: %w", c.Argv, context.Cause(over))
}

// stopped is the error of a command that took, or lost, the machine.
func (m *Machine) stopped(c Command, err error) error {
	return fmt.Errorf("run %q in the guest: %w\n%s", c.Argv, err, m.consoleTail())
}

// feed sends input until its end. Input that does not end, such as that of a
// terminal, keeps it until the end of the process.
func (m *Machine) feed(id int, stdin io.Reader) {
	chunk := make([]byte, 32<<10)
	for {
		n, err := stdin.Read(chunk)
		if n > 0 && m.session.send(wire.Request{ID: id, Stdin: chunk[:n]}) != nil {
			return
		}
		if err != nil {
			// The command that is told has perhaps ended.
			_ = m.session.send(wire.Request{ID: id, EOF: true})
			return
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
