package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// maxSunPath is the room for a path in a socket's address.
const maxSunPath = 107

// dial connects to the first of a target's sockets that takes the connection.
// It returns the drivers to ask for there, the likelier first.
func dial(ctx context.Context, root *hostfs.Root, t target) (net.Conn, []string, error) {
	if t.pod != "" {
		return dialPod(ctx, root, t)
	}
	failed := fmt.Errorf("find a socket of %s: %w", t.name, fs.ErrNotExist)
	for i, socket := range t.sockets(root) {
		conn, err := dialSocket(ctx, root, socket, t.owner)
		if err == nil {
			return conn, []string{t.driver}, nil
		}
		if i == 0 || errors.Is(failed, fs.ErrNotExist) {
			failed = fmt.Errorf("connect to %s: %w", socket, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, failed
}

func dialSocket(ctx context.Context, root *hostfs.Root, socket string, owner int) (net.Conn, error) {
	full, err := root.Resolve(socket)
	if err != nil {
		return nil, err
	}
	if len(full) > maxSunPath {
		// The kernel takes a longer path in two steps.
		dir, err := unix.Open(filepath.Dir(full), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir) //nolint:errcheck // a directory handle
		full = "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(full)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", full)
	if err != nil {
		return nil, errnoOf(err)
	}
	if err := checkOwner(conn, owner); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// checkOwner makes sure that a socket in a user's own directory leads to a
// process of that user and not, through a link, to somebody more trusted.
func checkOwner(conn net.Conn, owner int) error {
	if owner < 0 {
		return nil
	}
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	if int(peer.Uid) != owner {
		return fmt.Errorf("served by user %d, not %d: %w", peer.Uid, owner, fs.ErrPermission)
	}
	return nil
}

// peerOf returns who listened on the socket of a connection (SO_PEERCRED).
func peerOf(conn net.Conn) (*unix.Ucred, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("read peer of socket: %T is no Unix socket", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, peerErr); err != nil {
		return nil, fmt.Errorf("read peer of socket: %w", err)
	}
	return peer, nil
}

// errnoOf drops the address from a dial error, which names the path below the
// root; the caller names the host's own.
func errnoOf(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

// dialPod connects to the daemon of a virt-launcher pod. The pod may put
// anything at the socket's place, so the way there follows no link, the
// connection goes to the very socket that was looked at, and who answers must
// be of the pod. A socket of another one, handed in, or of the host is refused.
func dialPod(ctx context.Context, root *hostfs.Root, t target) (net.Conn, []string, error) {
	volume, err := root.OpenBeneath(t.dir, append([]string{t.pod}, launcherVolume[:]...)...)
	if err != nil {
		return nil, nil, err
	}
	socket, err := openPodSocket(volume)
	_ = volume.Close()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = socket.Close() }()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(socket.Fd())))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", socket.Name(), errnoOf(err))
	}
	peer, err := peerOf(conn)
	if err == nil {
		err = checkPod(root, t.pod, peer)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("connect to %s: %w", socket.Name(), err), conn.Close())
	}
	if peer.Uid == 0 {
		return conn, []string{driverSystem, driverSession}, nil
	}
	return conn, []string{driverSession, driverSystem}, nil
}

// checkPod makes sure that a process is of a pod. Its control group says so,
// which the pod cannot choose. Where that cannot be read, as without the
// host's processes in sight, nobody knows who root is.
func checkPod(root *hostfs.Root, pod string, peer *unix.Ucred) error {
	file := procPath(int(peer.Pid), "cgroup")
	data, err := root.ReadFile(file)
	switch {
	case err == nil && parsePodCgroup(data) == pod:
		return nil
	case err == nil:
		return fmt.Errorf("served by process %d, which is not of the pod: %w", peer.Pid, fs.ErrPermission)
	case peer.Uid == 0:
		return fmt.Errorf("served by root, and whether in the pod is unknown, for %s cannot be read; run with the host's PID namespace: %w", file, fs.ErrPermission)
	}
	return nil
}
