// Package libvirt is a test bed: a private libvirtd with tiny domains that run
// under QEMU's own processor (TCG), so neither /dev/kvm nor a guest image is
// needed. The domains boot one sector that idles, spins, or moves data through
// its disks and its NIC, which is all a stats reader can see of a guest.
//
//	host := libvirt.New(t, libvirt.Options{})
//	err := host.StartDomains(ctx,
//		libvirt.Domain{Name: "quiet"},
//		libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, NICs: []libvirt.NIC{{}}},
//	)
//	out, err := host.Virsh(ctx, "domstats")
//	err = host.Hang("quiet")
//
// The bed lives in PID, mount and network namespaces of its own, below one
// temporary folder: several beds, and a libvirtd that the machine runs itself,
// do not see each other. It ends with the process that started it, however
// that one ends, and leaves nothing behind.
package libvirt
