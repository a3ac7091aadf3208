package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

const devicesDir = "/sys/bus/pci/devices/"

// fake is a host with igb cards: a tree of files that changes as the kernel
// changes sysfs when something is written into it, and the netlink attributes
// of the VFs. It refuses what the kernel refuses, with the same errors.
type fake struct {
	t    *testing.T
	dir  string
	root *hostfs.Root

	mu      sync.Mutex
	pfs     map[string]*fakePF  // by address
	uses    map[string][]string // of interfaces
	uplinks map[string]string   // reasons
	pods    map[string][]string // by address
	podsErr error
	shared  bool                    // all VFs of a PF are in its IOMMU group
	devices int                     // that vfio-pci has named
	netdevs int                     // that have been named
	log     []string                // "PATH=VALUE" of each write, "pf vf N: …" of each attribute
	fail    func(what string) error // injected
}

type fakePF struct {
	netdev string
	bus    int
	vfs    map[int]*sriov.Attributes
}

// newFake returns a host with PFs of up to seven VFs each, on buses 1, 2 and so on.
func newFake(t *testing.T, pfs int) *fake {
	t.Helper()
	f := &fake{
		t: t, dir: onMemory(t), pfs: make(map[string]*fakePF), uses: make(map[string][]string),
		uplinks: make(map[string]string), pods: make(map[string][]string),
	}
	f.file("/proc/2/comm", "kthreadd\n")
	f.folder("/var/lib")
	f.file("/sys/bus/pci/drivers_probe", "")
	for _, driver := range []string{"igb", "igbvf", "vfio-pci"} {
		f.folder("/sys/bus/pci/drivers/" + driver)
	}
	for n := range pfs {
		address := fmt.Sprintf("0000:%02x:00.0", n+1)
		pf := &fakePF{netdev: fmt.Sprintf("eth%d", n), bus: n + 1, vfs: make(map[int]*sriov.Attributes)}
		f.pfs[address] = pf
		f.netdevs++
		dir := devicesDir + address
		f.file(dir+"/class", "0x020000\n")
		f.file(dir+"/sriov_totalvfs", "7\n")
		f.file(dir+"/sriov_numvfs", "0\n")
		f.file(dir+"/sriov_drivers_autoprobe", "1\n")
		f.file(dir+"/numa_node", fmt.Sprintf("%d\n", n%2))
		f.link(dir+"/driver", "../../drivers/igb")
		f.group(address, 10*(n+1))
		f.netdev(address, pf.netdev)
	}
	root, err := hostfs.Open(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	f.root = root
	return f
}

// onMemory returns a folder for thousands of small files, and of records that
// are synced: on memory, where there is some.
func onMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sriov-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// host returns the fake as the package under test sees it.
func (f *fake) host() sriov.Host {
	return sriov.Host{
		Root: f.root, Sysfs: f, Links: f, Pods: fakePods{f},
		Describe: func(pid int) string { return fmt.Sprintf("VM web, process %d", pid) },
	}
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) must(err error) {
	if err != nil {
		f.t.Helper()
		f.t.Fatal(err)
	}
}

func (f *fake) folder(name string) { f.must(os.MkdirAll(f.path(name), 0o755)) }

func (f *fake) file(name, content string) {
	f.folder(path.Dir(name))
	f.must(os.WriteFile(f.path(name), []byte(content), 0o600))
}

func (f *fake) link(name, target string) {
	f.folder(path.Dir(name))
	f.must(os.Symlink(target, f.path(name)))
}

func (f *fake) remove(name string) { f.must(os.RemoveAll(f.path(name))) }

func (f *fake) read(name string) string {
	data, err := os.ReadFile(f.path(name))
	f.must(err)
	return strings.TrimSpace(string(data))
}

func (f *fake) group(address string, number int) {
	dir := fmt.Sprintf("/sys/kernel/iommu_groups/%d/devices/", number)
	f.link(dir+address, "../../../../bus/pci/devices/"+address)
	f.link(devicesDir+address+"/iommu_group", fmt.Sprintf("../../../../kernel/iommu_groups/%d", number))
}

// netdev registers an interface of a device.
func (f *fake) netdev(address, name string) {
	f.file("/sys/class/net/"+name+"/flags", "0x1002\n")
	f.file("/sys/class/net/"+name+"/mtu", "1500\n")
	f.file("/sys/class/net/"+name+"/operstate", "up\n")
	f.folder(devicesDir + address + "/net/" + name)
}

// Write is what the kernel does with a value.
func (f *fake) Write(_ context.Context, name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	value = strings.TrimSpace(value)
	f.log = append(f.log, name+"="+value)
	if f.fail != nil {
		if err := f.fail(name + "=" + value); err != nil {
			return &os.PathError{Op: "write", Path: name, Err: err}
		}
	}
	if _, err := os.Stat(f.path(path.Dir(name))); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: unix.ENOENT}
	}
	var err error
	address := path.Base(path.Dir(name))
	switch path.Base(name) {
	case "sriov_numvfs":
		err = f.setNumVFs(address, value)
	case "sriov_drivers_autoprobe":
		f.file(name, value+"\n")
	case "driver_override":
		if value == "" {
			value = "(null)"
		}
		f.file(name, value+"\n")
	case "unbind":
		err = f.unbind(value)
	case "drivers_probe":
		err = f.probe(value)
	default:
		err = unix.ENOENT
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func (f *fake) setNumVFs(address, value string) error {
	count, err := strconv.Atoi(value)
	pf := f.pfs[address]
	switch {
	case err != nil || pf == nil:
		return unix.EINVAL
	case count == len(pf.vfs):
		return nil
	case count > 7:
		return unix.ERANGE
	case count > 0 && len(pf.vfs) > 0:
		return unix.EBUSY
	}
	for index := range pf.vfs {
		vf := vfAddress(pf.bus, index)
		if err := f.unbind(vf); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
		f.remove(fmt.Sprintf("/sys/kernel/iommu_groups/%d/devices/%s", f.groupOf(pf, index), vf))
		f.remove(devicesDir + vf)
		f.remove(fmt.Sprintf("%s%s/virtfn%d", devicesDir, address, index))
	}
	clear(pf.vfs)
	for index := range count {
		vf := vfAddress(pf.bus, index)
		pf.vfs[index] = &sriov.Attributes{
			MAC: "00:00:00:00:00:00", VLAN: new(0), QoS: new(0), VLANProtocol: "802.1Q", MinTxRate: new(0), MaxTxRate: new(0),
			SpoofCheck: new(true), Trust: new(false), LinkState: "auto",
		}
		f.file(devicesDir+vf+"/class", "0x020000\n")
		f.file(devicesDir+vf+"/driver_override", "(null)\n")
		f.link(devicesDir+vf+"/physfn", "../"+address)
		f.link(fmt.Sprintf("%s%s/virtfn%d", devicesDir, address, index), "../"+vf)
		f.group(vf, f.groupOf(pf, index))
		if err := f.probe(vf); err != nil {
			return err
		}
	}
	f.file(devicesDir+address+"/sriov_numvfs", value+"\n")
	return nil
}

func (f *fake) groupOf(pf *fakePF, index int) int {
	if f.shared {
		return 10 * pf.bus
	}
	return 10*pf.bus + 1 + index
}

func vfAddress(bus, index int) string {
	return fmt.Sprintf("0000:%02x:%02x.%x", bus+0x10, 0x10+2*index/8, 2*index%8)
}

func (f *fake) unbind(address string) error {
	dir := devicesDir + address
	if _, err := os.Lstat(f.path(dir + "/driver")); err != nil {
		return unix.ENODEV
	}
	names, err := os.ReadDir(f.path(dir + "/net"))
	if err == nil {
		for _, name := range names {
			f.remove("/sys/class/net/" + name.Name())
		}
	}
	for _, gone := range []string{"/driver", "/net", "/vfio-dev"} {
		f.remove(dir + gone)
	}
	return nil
}

// probe looks for a driver as bus_probe_device does. That none is found is no error.
func (f *fake) probe(address string) error {
	dir := devicesDir + address
	if _, err := os.Lstat(f.path(dir)); err != nil {
		return unix.EINVAL
	}
	if _, err := os.Lstat(f.path(dir + "/driver")); err == nil {
		return nil
	}
	physfn, err := os.Readlink(f.path(dir + "/physfn"))
	f.must(err)
	driver, override := "igbvf", f.read(dir+"/driver_override")
	switch {
	case override != "(null)":
		driver = override
	case f.read(devicesDir+path.Base(physfn)+"/sriov_drivers_autoprobe") == "0":
		return nil
	}
	if loaded, err := f.root.Exists("/sys/bus/pci/drivers/" + driver); err != nil || !loaded {
		return err
	}
	f.link(dir+"/driver", "../../drivers/"+driver)
	if driver == "vfio-pci" {
		f.folder(dir + "/vfio-dev/vfio" + strconv.Itoa(f.devices))
		f.devices++
		return nil
	}
	f.netdev(address, fmt.Sprintf("eth%d", f.netdevs))
	f.netdevs++
	return nil
}

func (f *fake) byNetdev(name string) (*fakePF, error) {
	for _, pf := range f.pfs {
		if pf.netdev == name {
			return pf, nil
		}
	}
	return nil, unix.ENODEV
}

// VFs returns copies, as a netlink dump does.
func (f *fake) VFs(_ context.Context, netdev string) (map[int]sriov.Attributes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pf, err := f.byNetdev(netdev)
	if err != nil {
		return nil, err
	}
	all := make(map[int]sriov.Attributes)
	for index, attributes := range pf.vfs {
		all[index] = *attributes
	}
	return all, nil
}

// SetVF has the limits of igb.
func (f *fake) SetVF(_ context.Context, netdev string, index int, change sriov.Attributes) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	what := fmt.Sprintf("%s vf %d: %v", netdev, index, change)
	f.log = append(f.log, what)
	if f.fail != nil {
		if err := f.fail(what); err != nil {
			return err
		}
	}
	pf, err := f.byNetdev(netdev)
	if err != nil {
		return err
	}
	vf := pf.vfs[index]
	switch {
	case vf == nil, change.MinTxRate != nil && *change.MinTxRate != 0:
		return unix.EINVAL
	case change.LinkState != "":
		return unix.EOPNOTSUPP
	case change.VLANProtocol == "802.1ad":
		return unix.EPROTONOSUPPORT
	}
	if change.MAC != "" {
		vf.MAC = change.MAC
	}
	if change.VLAN != nil {
		vf.VLAN, vf.QoS = new(*change.VLAN), new(0)
		if change.QoS != nil {
			vf.QoS = new(*change.QoS)
		}
	}
	if change.MaxTxRate != nil {
		vf.MaxTxRate = new(*change.MaxTxRate)
	}
	if change.SpoofCheck != nil {
		vf.SpoofCheck = new(*change.SpoofCheck)
	}
	if change.Trust != nil {
		vf.Trust = new(*change.Trust)
	}
	return nil
}

// Look returns what asks the fake itself.
func (f *fake) Look(context.Context) (sriov.Snapshot, error) { return snapshot{f}, nil }

type snapshot struct{ *fake }

func (s snapshot) Named(netdev string) (sriov.Link, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Stat(s.path("/sys/class/net/" + netdev)); err != nil {
		return sriov.Link{}, false
	}
	mtu, err := strconv.Atoi(s.read("/sys/class/net/" + netdev + "/mtu"))
	s.must(err)
	return sriov.Link{Name: netdev, MTU: mtu, Up: s.read("/sys/class/net/"+netdev+"/flags") == "0x1003", Users: s.uses[netdev]}, true
}

func (s snapshot) Uplink(netdev string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason, is := s.uplinks[netdev]
	return reason, is
}

func (f *fake) SetLink(_ context.Context, netdev string, mtu int, up *bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf("%s: mtu %d", netdev, mtu))
	if _, err := os.Stat(f.path("/sys/class/net/" + netdev)); err != nil {
		return unix.ENODEV
	}
	if up != nil {
		f.file("/sys/class/net/"+netdev+"/flags", map[bool]string{true: "0x1003\n", false: "0x1002\n"}[*up])
	}
	if mtu != 0 {
		f.file("/sys/class/net/"+netdev+"/mtu", strconv.Itoa(mtu)+"\n")
	}
	return nil
}

type fakePods struct{ *fake }

func (p fakePods) Devices(context.Context) (map[string][]string, error) { return p.pods, p.podsErr }
func (p fakePods) Source() string                                       { return "kubelet.sock" }
