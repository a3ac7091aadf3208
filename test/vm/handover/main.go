// Command handover asks VFIO whether it would hand an IOMMU group to a VM, as
// QEMU does at its start, and prints the answer. The tests compare it with
// what the agent says, which only reads. With more arguments than the group,
// those of a QEMU, it keeps what it was handed until it is killed.
package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/vfio.h.
const (
	setIOMMU       = ';'<<8 + 102 // VFIO_SET_IOMMU
	groupGetStatus = ';'<<8 + 103 // VFIO_GROUP_GET_STATUS
	setContainer   = ';'<<8 + 104 // VFIO_GROUP_SET_CONTAINER
	groupViable    = 1            // VFIO_GROUP_FLAGS_VIABLE
	type1v2        = 3            // VFIO_TYPE1v2_IOMMU
)

// groupStatus is struct vfio_group_status.
type groupStatus struct{ size, flags uint32 }

func main() {
	if err := handOver("/dev/vfio/" + os.Args[1]); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("handed over")
	if len(os.Args) > 2 {
		_ = unix.Pause() // a signal ends it
	}
}

func handOver(node string) error {
	group, err := unix.Open(node, unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the group: %w", err)
	}
	container, err := unix.Open("/dev/vfio/vfio", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the container: %w", err)
	}
	status := groupStatus{size: uint32(unsafe.Sizeof(groupStatus{}))}
	if err := ioctl(group, groupGetStatus, uintptr(unsafe.Pointer(&status))); err != nil {
		return fmt.Errorf("ask for the group's status: %w", err)
	}
	if status.flags&groupViable == 0 {
		return errors.New("the group is not viable")
	}
	number := int32(container)
	if err := ioctl(group, setContainer, uintptr(unsafe.Pointer(&number))); err != nil {
		return fmt.Errorf("put the group into a container: %w", err)
	}
	if err := ioctl(container, setIOMMU, type1v2); err != nil {
		return fmt.Errorf("set the container's IOMMU: %w", err)
	}
	return nil
}

func ioctl(fd, request int, argument uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), argument); errno != 0 {
		return errno
	}
	return nil
}
