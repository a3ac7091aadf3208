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
func dial(ctx context.Context, root *hostfs.Root, t target) (net.Conn, error) {
	failed := fmt.Errorf("find a socket of %s: %w", t.name, fs.ErrNotExist)
	for i, socket := range t.sockets(root) {
		conn, err := dialSocket(ctx, root, socket, t.owner)
		if err == nil {
			return conn, nil
		}
		if i == 0 || errors.Is(failed, fs.ErrNotExist) {
			failed = fmt.Errorf("connect to %s: %w", socket, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
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
	socket, ok := conn.(*net.UnixConn)
	if owner < 0 || !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, peerErr); err != nil {
		return fmt.Errorf("read peer of socket: %w", err)
	}
	if int(peer.Uid) != owner {
		return fmt.Errorf("served by user %d, not %d: %w", peer.Uid, owner, fs.ErrPermission)
	}
	return nil
}

// errnoOf drops the address from a dial error, which names the path below the
// root; the caller names the host's own.
func errnoOf(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}
