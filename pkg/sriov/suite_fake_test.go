package sriov_test

import (
	"fmt"
	"testing"
)

func TestFake(t *testing.T) {
	suite(t, func(t *testing.T) bed { return fakeBed{newFake(t, 1)} })
}

// fakeBed is the fake as a bed for the suite.
type fakeBed struct{ *fake }

func (b fakeBed) slow() bool { return false }
func (b fakeBed) pf() string { return "0000:01:00.0" }

func (b fakeBed) takeAway(_ *testing.T, index int) (back func()) {
	dir := devicesDir + vfAddress(1, index) + "/net"
	names, err := b.root.ReadDir(dir)
	b.must(err)
	b.remove(dir)
	return func() { b.folder(dir + "/" + names[0]) }
}

func (b fakeBed) hold(_ *testing.T, index int) (release func()) {
	b.file("/proc/812/comm", "qemu-kvm\n")
	b.link("/proc/812/fd/7", fmt.Sprintf("/dev/vfio/%d", b.groupOf(b.pfs[b.pf()], index)))
	return func() { b.remove("/proc/812") }
}
