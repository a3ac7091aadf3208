// Package vm is the test bed "a node in a VM": Debian's kernel with its
// modules under QEMU's TCG, with what the machine that runs the tests does
// not have: /dev/kvm (AMD SVM), an SR-IOV NIC (igb), an IOMMU, NUMA nodes and
// huge pages.
//
// Prepare makes the kernel and the initramfs once, in the cache. Boot starts
// a Profile and returns a Machine; its commands run in the guest as root, one
// boot for many of them, and files go in and out through a shared folder:
//
//	m := vm.Start(t, vm.SRIOV())
//	vfs := m.Sh(t, `echo 7 > /sys/class/net/eth0/device/sriov_numvfs; ls /sys/bus/pci/drivers/igbvf`)
//
// The first process in the guest is the program in guest; the messages
// between the two are in wire.
package vm
