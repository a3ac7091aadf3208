package kvmcheck

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const kvmPath = "/dev/kvm"

// hostDevices opens the device nodes below a root.
type hostDevices struct{ root *hostfs.Root }

func (d hostDevices) Open(path string) Node {
	file, node := d.open(path)
	if file != nil {
		_ = file.Close() // nothing was asked of it
	}
	return node
}

// open returns the open device, or nil and the node that says why.
func (d hostDevices) open(path string) (*os.File, Node) {
	node := Node{Path: path}
	full, err := d.root.Resolve(path)
	if err != nil {
		node.Err = err.Error()
		return nil, node
	}
	there, err := d.root.Exists(path)
	if err == nil && !there {
		node.State = NodeAbsent
		return nil, node
	}
	if err != nil {
		node.Err = err.Error()
		return nil, node
	}
	info, err := os.Stat(full)
	switch {
	case err != nil:
		node.refuse(err)
		return nil, node
	case info.Mode()&os.ModeCharDevice == 0:
		node.Err = path + ": not a character device"
		return nil, node
	}
	fd, err := unix.Open(full, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		node.State = NodeRefused
		node.refuse(err)
		return nil, node
	}
	node.State = NodeOpened
	return os.NewFile(uintptr(fd), path), node
}

func (n *Node) refuse(err error) {
	n.Errno = errnoName(err)
	n.Err = n.Path + ": " + errText(err)
}

func errnoName(err error) string {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	return ""
}

func errText(err error) string {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}
