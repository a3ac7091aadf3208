package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Options say how a bed differs from the usual one.
type Options struct {
	// HostNetwork leaves the domains' taps in the caller's network namespace,
	// for a test that reads them there. They end with the bed all the same.
	HostNetwork bool
	// Pod makes the bed one of a node's virt-launcher pods.
	Pod *Pod
}

// Host is a machine with libvirtd and domains, as far as those can tell.
// Its methods may be called from several goroutines.
type Host struct {
	dir string
	pod *Pod
	ns  *namespaces

	closing sync.Once
	closed  error
}

// maxSocketPath is the longest path a Unix socket can have (sun_path, less its
// final zero).
const maxSocketPath = 107

// New is Start for a test: the test ends when the bed does not start, and is
// skipped, or fails, when the machine cannot carry one (see hosttest.Need).
// The bed is closed when the test ends.
func New(t testing.TB, options Options) *Host {
	t.Helper()
	hosttest.Need(t, hosttest.Libvirt, Missing())
	host, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return host
}

// Start makes a bed and returns when its libvirtd answers. The context bounds
// the start; the bed lives until Close, or the end of this process.
func Start(ctx context.Context, options Options) (*Host, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	host, err := newHost(options)
	if err != nil {
		return nil, err
	}
	if err := host.boot(ctx); err != nil {
		return nil, errors.Join(err, host.Close())
	}
	return host, nil
}

func newHost(options Options) (*Host, error) {
	dir, err := makeFolder()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(makeLayout(dir), options.Pod.makeVolume(), options.Pod.addUser(dir)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ns, err := enclose(dir, options)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Host{dir: dir, pod: options.Pod, ns: ns}, nil
}

func (h *Host) boot(ctx context.Context) error {
	if err := writeSettings(h.dir, h.pod.mode()); err != nil {
		return err
	}
	if err := recallCapabilities(h.dir); err != nil {
		return err
	}
	if err := h.pod.own(h.dir, h.pod.volume()); err != nil {
		return err
	}
	if err := h.StartDaemon(ctx); err != nil {
		return err
	}
	// The question makes libvirtd look at QEMU, unless it has a valid answer.
	if _, err := h.Virsh(ctx, "capabilities"); err != nil {
		return err
	}
	return rememberCapabilities(h.dir)
}

// makeFolder makes the bed's folder where its socket's path is short enough.
func makeFolder() (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "nodeagent-libvirt-")
		if err != nil {
			return "", fmt.Errorf("make the bed's folder: %w", err)
		}
		if len(socketPath(dir)) <= maxSocketPath {
			return dir, nil
		}
		if err := os.Remove(dir); err != nil {
			return "", fmt.Errorf("remove a folder with too long a name: %w", err)
		}
	}
	return "", errors.New("make the bed's folder: every path is too long for a socket")
}

func makeLayout(dir string) error {
	for _, name := range []string{etcDir, runDir, libDir, cacheDir, logDir, imageDir} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("lay out the bed's folder: %w", err)
		}
	}
	return nil
}

// Dir is the bed's folder; disk images are below it, at the same path inside
// and outside the bed.
func (h *Host) Dir() string { return h.dir }

// RunDir is what /run is inside the bed: below it are libvirtd's sockets and
// the state of its domains.
func (h *Host) RunDir() string { return filepath.Join(h.dir, runDir) }

// Socket is libvirtd's socket, as every process of the machine can reach it.
func (h *Host) Socket() string {
	if h.pod != nil {
		// In the pod's volume, the path is too long for a socket.
		return fmt.Sprintf("/proc/%d/root/run/libvirt/libvirt-sock", h.Init())
	}
	return socketPath(h.dir)
}

func socketPath(dir string) string {
	return filepath.Join(dir, runDir, "libvirt", "libvirt-sock")
}

// URI is libvirt's name for the connection.
func (h *Host) URI() string { return "qemu+unix:///" + h.pod.mode() + "?socket=" + h.Socket() }

// stateDir is where libvirtd keeps the state of its domains, as seen from the machine.
func (h *Host) stateDir() string {
	dir := filepath.Join(h.dir, runDir, "libvirt")
	if h.pod != nil {
		dir = h.pod.volume()
	}
	if h.pod.mode() == session {
		return filepath.Join(dir, "qemu", "run")
	}
	return filepath.Join(dir, "qemu")
}

// Close ends every process of the bed and removes its folder.
func (h *Host) Close() error {
	h.closing.Do(func() {
		h.closed = errors.Join(h.ns.close(), os.RemoveAll(h.dir), h.pod.remove())
	})
	return h.closed
}
