//go:build !race

package qemu

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawRead is read(2) of something that does not block.
func rawRead(fd int, p []byte) (int, error) { return raw(unix.SYS_READ, fd, p) }

// rawWrite is write(2) to something that does not block.
func rawWrite(fd int, p []byte) (int, error) { return raw(unix.SYS_WRITE, fd, p) }

func raw(call uintptr, fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
