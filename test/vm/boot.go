package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Machine is a guest that runs. Its methods may be called at the same time.
type Machine struct {
	Profile Profile
	// Release is the guest kernel's, as uname -r prints it.
	Release string
	// Share is the host's folder that is /share in the guest.
	Share string

	dir     string        // console, qemu.log, and the share unless it was given
	grace   time.Duration // as the constant; shorter in a test
	process *os.Process
	session *session
	// down is closed when QEMU has ended.
	down chan struct{}
}

// boots is how often a guest is started that does not say a word: on QEMU's own
// processors a kernel loses, now and then, the timer of its second processor as
// it boots, and stands still.
const boots = 2

// errSilent is of a guest that has said nothing in its time.
var errSilent = errors.New("it says nothing")

// Boot starts p and returns when the guest takes commands; ctx bounds the
// boot only. The caller has to Close the machine. QEMU ends with this process
// in any case.
func Boot(ctx context.Context, p Profile) (m *Machine, err error) {
	for range boots {
		if m, err = bootOnce(ctx, p); !errors.Is(err, errSilent) || ctx.Err() != nil {
			break
		}
	}
	return m, err
}

func bootOnce(ctx context.Context, p Profile) (*Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, p.BootTimeout/boots)
	defer cancel()
	img, err := findImage()
	if err != nil {
		return nil, err
	}
	m, err := newMachine(p)
	if err != nil {
		return nil, err
	}
	err = m.launch(img)
	if err == nil {
		err = m.greet(ctx)
	}
	if err != nil {
		err = fmt.Errorf("boot %s: %w\n%s", p.Name, err, m.consoleTail())
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close ends the guest as pulling the plug would. What the guest has written
// to the share stays written, but a Share that Boot made is removed.
func (m *Machine) Close() error {
	m.kill()
	var err error
	if m.session != nil {
		err = m.session.close()
	}
	return errors.Join(err, os.RemoveAll(m.dir))
}

// kill ends QEMU and waits for its end.
func (m *Machine) kill() {
	if m.process == nil {
		return
	}
	// The only failure is that it has ended before.
	_ = m.process.Kill()
	<-m.down
}

func newMachine(p Profile) (*Machine, error) {
	dir, err := os.MkdirTemp("", "nodeagent-vm-")
	if err != nil {
		return nil, fmt.Errorf("make the machine's folder: %w", err)
	}
	m := &Machine{Profile: p, Share: p.Share, dir: dir, grace: grace, down: make(chan struct{})}
	if m.Share == "" {
		m.Share = filepath.Join(dir, "share")
		err = os.Mkdir(m.Share, 0o755)
	} else {
		m.Share, err = filepath.Abs(m.Share)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the share: %w", err), os.RemoveAll(dir))
	}
	return m, nil
}

// launch starts QEMU with one end of a socket pair as the agent's port: there
// is no path to agree on, and each side sees the other's end at once.
func (m *Machine) launch(img image) error {
	path, err := findTool(qemu)
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make the port: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "guest end of the port")
	defer func() { _ = theirs.Close() }() // QEMU has its own
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return errors.Join(fmt.Errorf("make the port: %w", err), unix.Close(pair[0]))
	}
	m.session = newSession(os.NewFile(uintptr(pair[0]), "host end of the port"))
	log, err := os.Create(filepath.Join(m.dir, "qemu.log"))
	if err != nil {
		return fmt.Errorf("create QEMU's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(path, commandLine(m.Profile, files{
		kernel: img.kernel, initrd: img.initrd, share: m.Share, console: m.file("console"),
	})...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs} // agentFD
	// control-C does not end it before the console is read.
	ended, err := hosttest.StartTethered(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	go func() {
		<-ended //nolint:errcheck // how QEMU ends says nothing; what it has printed does
		close(m.down)
	}()
	m.process = cmd.Process
	return nil
}

// greet waits for the guest's first message and loads the profile's modules.
func (m *Machine) greet(ctx context.Context) error {
	ready := m.session.expect(0)
	go m.session.read(m.down)
	select {
	case event := <-ready:
		m.Release = event.Ready
	case <-m.down:
		return m.whyStopped()
	case <-ctx.Done():
		return fmt.Errorf("wait for the guest: %w: %w", errSilent, ctx.Err())
	}
	for _, module := range m.Profile.Modules {
		r, err := m.Exec(ctx, "modprobe "+module)
		if err != nil {
			return err
		}
		if r.Code != 0 {
			return fmt.Errorf("load module %s: %s", module, strings.TrimSpace(r.Stderr))
		}
	}
	return nil
}

func (m *Machine) file(name string) string { return filepath.Join(m.dir, name) }
