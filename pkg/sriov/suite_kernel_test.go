package sriov_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// pfEnv names the PF that the tests may change, by its address. Package
// test/vm sets it, in a machine of its own.
const pfEnv = "NODEAGENT_SRIOV_PF"

// TestKernel holds the kernel to the suite that the fake passes.
func TestKernel(t *testing.T) { suite(t, func(t *testing.T) bed { return newKernel(t) }) }

// kernel is this machine.
type kernel struct {
	root    *hostfs.Root
	address string
	links   sriov.Links
}

func newKernel(t testing.TB) kernel {
	t.Helper()
	address := os.Getenv(pfEnv)
	if address == "" {
		t.Skipf("%s names no PF: the tests of package test/vm run this one in a machine of theirs", pfEnv)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	netlink, err := hostnet.OpenNetlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	b := kernel{root, address, hostnet.VFLinks{Host: &hostnet.Host{Kernel: netlink, Root: root}, Netlink: netlink}}
	t.Cleanup(func() {
		if err := root.Write(context.Background(), b.device()+"/sriov_numvfs", "0"); err != nil {
			t.Error(err)
		}
		_ = errors.Join(root.Close(), netlink.Close())
	})
	pf := observe(t, b.host()).PFs[0]
	if err := b.links.SetLink(t.Context(), pf.Netdev(), 0, new(true)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b kernel) host() sriov.Host {
	return sriov.Host{Root: b.root, Sysfs: b.root, Links: b.links}
}

func (b kernel) slow() bool     { return true }
func (b kernel) pf() string     { return b.address }
func (b kernel) device() string { return devicesDir + b.address }

// takeAway moves the interface to a namespace, whose end gives hardware back.
func (b kernel) takeAway(t *testing.T, index int) (back func()) {
	t.Helper()
	const name = "sriov-taken"
	ip(t, "netns", "add", name)
	ip(t, "link", "set", vfOf(t, b, index).Netdevs[0], "netns", name)
	return func() {
		ip(t, "netns", "del", name)
		await(t, "the interface is back", func() bool { return len(vfOf(t, b, index).Netdevs) > 0 })
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("/usr/sbin/ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// hold opens the group, as QEMU does.
func (b kernel) hold(t *testing.T, index int) (release func()) {
	t.Helper()
	group := vfOf(t, b, index).IOMMUGroup
	file, err := os.OpenFile(filepath.Join("/dev/vfio", strconv.Itoa(*group)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return func() { _ = file.Close() }
}
