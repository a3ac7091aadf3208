package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Pod says which virt-launcher pod of a node the bed is: libvirtd runs alone
// with its domain, and its sockets are in the volume that the kubelet gave the
// pod, where the node sees them. libvirtd stands in for virtqemud, so its
// socket has that one's name as well.
type Pod struct {
	Kubelet string // the kubelet's folder, /var/lib/kubelet on a node
	UID     string
	// User runs libvirtd and the domain, as a session of its own; root's is
	// the system's, when zero. KubeVirt's is 107.
	User int
}

// The modes of libvirtd.
const (
	system  = "system"
	session = "session"
)

// mode tells libvirtd's; of a bed that is no pod, it is the system's.
func (p *Pod) mode() string {
	if p == nil || p.User == 0 {
		return system
	}
	return session
}

// dir is the pod's folder on the node.
func (p *Pod) dir() string { return filepath.Join(p.Kubelet, "pods", p.UID) }

// volume is the folder for libvirtd's sockets; empty without a pod.
func (p *Pod) volume() string {
	if p == nil {
		return ""
	}
	return filepath.Join(p.dir(), "volumes", "kubernetes.io~empty-dir", "libvirt-runtime")
}

// Socket is the socket that a node's agent looks for.
func (p *Pod) Socket() string { return filepath.Join(p.volume(), "virtqemud-sock") }

func (p *Pod) makeVolume() error {
	if p == nil {
		return nil
	}
	if err := os.MkdirAll(p.volume(), 0o755); err != nil {
		return fmt.Errorf("make the pod's volume: %w", err)
	}
	return nil
}

// addUser writes, for the bed alone, a /etc/passwd that has the user: libvirt
// asks for the name of whoever it works for.
func (p *Pod) addUser(dir string) error {
	if p.mode() == system {
		return nil
	}
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return fmt.Errorf("add a user: %w", err)
	}
	users = fmt.Appendf(users, "bed-pod:x:%d:%d::/var/lib/libvirt:/bin/sh\n", p.User, p.User)
	if err := os.WriteFile(filepath.Join(dir, "passwd"), users, 0o644); err != nil {
		return fmt.Errorf("add a user: %w", err)
	}
	return nil
}

// remove does what the kubelet does when the pod has ended.
func (p *Pod) remove() error {
	if p == nil {
		return nil
	}
	return os.RemoveAll(p.dir())
}

// own gives folders and all in them to the pod's user.
func (p *Pod) own(folders ...string) error {
	if p.mode() == system {
		return nil
	}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(name string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(name, p.User, p.User))
		})
		if err != nil {
			return fmt.Errorf("give the bed's files to user %d: %w", p.User, err)
		}
	}
	return nil
}

// publish gives libvirtd's socket the name that virtqemud's has. A link of the
// file system leads to the same socket and is none that can be followed.
func (p *Pod) publish() error {
	if p == nil {
		return nil
	}
	if err := os.Remove(p.Socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the pod's socket of before: %w", err)
	}
	if err := os.Link(filepath.Join(p.volume(), "libvirt-sock"), p.Socket()); err != nil {
		return fmt.Errorf("publish the pod's socket: %w", err)
	}
	return nil
}

// daemonCommand is Command as the user who runs libvirtd.
func (h *Host) daemonCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	if h.pod.mode() == system {
		return h.Command(ctx, name, args...)
	}
	user := strconv.Itoa(h.pod.User)
	// A session's files go where the system's would: the bed has made place for those.
	own := []string{"--clear-groups", "--reuid", user, "--regid", user, "env", "HOME=/var/lib/libvirt", "XDG_CONFIG_HOME=/etc", "XDG_CACHE_HOME=/var/cache", "XDG_RUNTIME_DIR=/run", name}
	return h.Command(ctx, "setpriv", append(own, args...)...)
}
