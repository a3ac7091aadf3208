package sriov_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/reconcile"
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
	b := kernel{root, address}
	t.Cleanup(func() {
		if err := root.Write(context.Background(), b.device()+"/sriov_numvfs", "0"); err != nil {
			t.Error(err)
		}
		_ = root.Close()
	})
	links := b.host().Links
	pf := observe(t, b.host()).PFs[0]
	if err := links.SetLink(t.Context(), pf.Netdev(), 0, new(true)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b kernel) host() sriov.Host {
	return sriov.Host{Root: b.root, Sysfs: b.root, Links: netlinks{}}
}

func (b kernel) pf() string     { return b.address }
func (b kernel) device() string { return devicesDir + b.address }

// takeAway moves the interface to a namespace that lives as long as a file of
// ours. Its end gives hardware back.
func (b kernel) takeAway(t *testing.T, index int) (back func()) {
	t.Helper()
	vf := vfOf(t, b, index)
	namespace := newNamespace(t)
	link, err := netlink.LinkByName(vf.Netdevs[0])
	if err == nil {
		err = netlink.LinkSetNsFd(link, int(namespace.Fd()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = namespace.Close()
		await(t, "the interface is back", func() bool { return len(vfOf(t, b, index).Netdevs) > 0 })
	}
}

// newNamespace makes a network namespace, and returns what keeps it.
func newNamespace(t *testing.T) *os.File {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the namespace that it is in
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{err: err}
			return
		}
		file, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		result <- made{file, err}
	}()
	r := <-result
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.file.Close() })
	return r.file
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// hold opens the group, as QEMU does.
func (b kernel) hold(t *testing.T, index int) (release func()) {
	t.Helper()
	group := vfOf(t, b, index).IOMMUGroup
	file, err := os.OpenFile(filepath.Join("/dev/vfio", fmt.Sprint(*group)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return func() { _ = file.Close() }
}

// netlinks speaks netlink without the care of package hostnet.
type netlinks struct{}

func (netlinks) Link(_ context.Context, name string) (sriov.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return sriov.Link{}, err
	}
	return sriov.Link{Name: name, MTU: link.Attrs().MTU, Up: link.Attrs().RawFlags&unix.IFF_UP != 0}, nil
}

func (netlinks) VFs(_ context.Context, pf string) (map[int]sriov.Attributes, error) {
	link, err := netlink.LinkByName(pf)
	if err != nil {
		return nil, err
	}
	all := make(map[int]sriov.Attributes)
	for _, vf := range link.Attrs().Vfs {
		all[vf.ID] = sriov.Attributes{
			MAC: vf.Mac.String(), VLAN: new(vf.Vlan), QoS: new(vf.Qos), VLANProtocol: "802.1Q",
			MinTxRate: new(int(vf.MinTxRate)), MaxTxRate: new(int(vf.MaxTxRate)),
			SpoofCheck: new(vf.Spoofchk), Trust: new(vf.Trust == 1), LinkState: []string{"auto", "enable", "disable"}[vf.LinkState],
		}
	}
	return all, nil
}

func (netlinks) SetVF(_ context.Context, pf string, index int, want sriov.Attributes) error {
	link, err := netlink.LinkByName(pf)
	if err != nil {
		return err
	}
	if want.VLAN != nil && err == nil {
		qos := 0
		if want.QoS != nil {
			qos = *want.QoS
		}
		err = netlink.LinkSetVfVlanQos(link, index, *want.VLAN, qos)
	}
	if want.MaxTxRate != nil && err == nil {
		least := 0
		if want.MinTxRate != nil {
			least = *want.MinTxRate
		}
		err = netlink.LinkSetVfRate(link, index, least, *want.MaxTxRate)
	}
	if want.SpoofCheck != nil && err == nil {
		err = netlink.LinkSetVfSpoofchk(link, index, *want.SpoofCheck)
	}
	if want.Trust != nil && err == nil {
		err = netlink.LinkSetVfTrust(link, index, *want.Trust)
	}
	if want.LinkState != "" && err == nil {
		err = netlink.LinkSetVfState(link, index, map[string]uint32{"auto": 0, "enable": 1, "disable": 2}[want.LinkState])
	}
	return err
}

func (netlinks) SetLink(_ context.Context, name string, mtu int, up *bool) error {
	link, err := netlink.LinkByName(name)
	if err == nil && mtu != 0 {
		err = netlink.LinkSetMTU(link, mtu)
	}
	if err == nil && up != nil && *up {
		err = netlink.LinkSetUp(link)
	}
	return err
}

func (netlinks) Uplink(context.Context) (map[string]string, error) { return nil, nil }

var _ reconcile.Writer = sriov.Writer{}
