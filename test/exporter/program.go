package exporter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Program says what to start: the command that serves at an address. dir is a
// folder for its files, which goes when it ends.
type Program struct {
	Name    string
	Command func(dir, address string) (*exec.Cmd, error)
}

// AgentOptions say how the agent differs from one that runs without flags.
type AgentOptions struct {
	URIs   []string // libvirt daemons to ask; found by the agent when empty
	Config string   // YAML
	// Mounts puts folders of this machine in the place of others, for the
	// agent alone: it then sees /var/lib/kubelet, say, as a test has made it.
	Mounts map[string]string
}

// mountScript binds each pair of arguments, up to --, and becomes the rest.
const mountScript = `set -eu
while [ "$1" != -- ]; do
	mkdir -p "$2"
	mount --bind "$1" "$2"
	shift 2
done
shift
exec "$@"
`

// Agent is nodeagent run, of a binary that hosttest.Build made.
func Agent(binary string, options AgentOptions) Program {
	return Program{Name: "nodeagent", Command: func(dir, address string) (*exec.Cmd, error) {
		args := []string{binary, "run", "--web.listen-address", address}
		for _, uri := range options.URIs {
			args = append(args, "--libvirt-uri", uri)
		}
		if options.Config != "" {
			file := filepath.Join(dir, "config.yaml")
			if err := os.WriteFile(file, []byte(options.Config), 0o600); err != nil {
				return nil, fmt.Errorf("write the agent's configuration: %w", err)
			}
			args = append(args, "--config", file)
		}
		if len(options.Mounts) > 0 {
			enter := []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", mountScript, "sh"}
			for at, folder := range options.Mounts {
				enter = append(enter, folder, at)
			}
			args = append(append(enter, "--"), args...)
		}
		return exec.Command(args[0], args[1:]...), nil
	}}
}

// Debian is prometheus-libvirt-exporter on a libvirt daemon.
func Debian(uri string) Program {
	return Program{Name: debianExporter, Command: func(_, address string) (*exec.Cmd, error) {
		return exec.Command(debianExporter, "--libvirt.uri", uri, "--web.listen-address", address), nil
	}}
}

const debianExporter = "prometheus-libvirt-exporter"

// DebianMissing says why Debian's exporter cannot run here; nil when it can.
func DebianMissing() error {
	if _, err := exec.LookPath(debianExporter); err != nil {
		return fmt.Errorf("find %s (test/install.sh libvirt installs it): %w", debianExporter, err)
	}
	return nil
}

// Process is a program that serves. Its methods may be called from several
// goroutines.
type Process struct {
	Address string // host:port
	PID     int

	name  string
	dir   string
	cmd   *exec.Cmd
	ended chan struct{} // closed after the process's end
	err   error         // of its end; read it after ended

	closing sync.Once
	closed  error
}

// attempts is how many ports are tried: another process may take one between
// its being found free and the program's listening.
const attempts = 3

// Start returns when the program answers. The context bounds the start; the
// program runs until Close, or the end of this process.
func Start(ctx context.Context, program Program) (*Process, error) {
	var errs []error
	for range attempts {
		p, err := launch(program)
		if err != nil {
			return nil, err
		}
		if err = p.ready(ctx); err == nil {
			return p, nil
		}
		errs = append(errs, err, p.Close())
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, fmt.Errorf("start %s: %w", program.Name, errors.Join(errs...))
}

var errEnded = errors.New("it ended")

func launch(program Program) (p *Process, err error) {
	dir, err := os.MkdirTemp("", "nodeagent-exporter-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for %s: %w", program.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	address, err := hosttest.FreeAddress()
	if err != nil {
		return nil, err
	}
	cmd, err := program.Command(dir, address)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, fmt.Errorf("make the log of %s: %w", program.Name, err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := hosttest.StartTethered(cmd, syscall.SIGKILL)
	if err = errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", program.Name, err)
	}
	p = &Process{Address: address, PID: cmd.Process.Pid, name: program.Name, dir: dir, cmd: cmd, ended: make(chan struct{})}
	go func() {
		p.err = <-ended
		close(p.ended)
	}()
	return p, nil
}

// ready waits until the program takes connections.
func (p *Process) ready(ctx context.Context) error {
	return hosttest.Poll(ctx, p.name+" to listen", func() (bool, error) {
		select {
		case <-p.ended:
			return false, fmt.Errorf("%w: %w: %s", errEnded, p.err, p.Log())
		default:
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.Address)
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		return true, conn.Close()
	})
}

// Log is what the program has written so far.
func (p *Process) Log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// Close ends the program as a service manager would, and removes its files. It
// is an error when the program has ended before.
func (p *Process) Close() error {
	p.closing.Do(func() {
		select {
		case <-p.ended:
			p.closed = fmt.Errorf("%s %w before it was asked to: %w: %s", p.name, errEnded, p.err, p.Log())
		default:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			<-p.ended
		}
		p.closed = errors.Join(p.closed, os.RemoveAll(p.dir))
	})
	return p.closed
}
