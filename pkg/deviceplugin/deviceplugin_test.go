package deviceplugin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	pods "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/deviceplugin"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

const resource = "virtnode.io/fast-pool"

// card is a PF whose VFs a test changes under a running server.
type card struct {
	mu   sync.Mutex
	pool sriov.Pool
	pf   sriov.PFState
	err  error
}

func newCard() *card {
	c := &card{
		pool: sriov.Pool{Name: "fast", VFs: []int{0, 1, 2}, Driver: "vfio-pci"},
		pf:   sriov.PFState{PF: sriov.PF{Address: "0000:01:00.0", NUMANode: new(1), Netdevs: []string{"eth0"}}},
	}
	for index, address := range []string{"0000:11:10.0", "0000:11:10.2", "0000:11:10.4", "0000:11:10.6"} {
		c.pf.VFs = append(c.pf.VFs, sriov.VFState{VF: sriov.VF{Index: index, Address: address, Driver: "vfio-pci", IOMMUGroup: new(20 + index)}})
	}
	return c
}

func (c *card) look(context.Context) ([]deviceplugin.Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return deviceplugin.Devices(c.pool, c.pf), c.err
}

func (c *card) change(change func(*card)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// serve runs a server until the test ends.
func serve(t *testing.T, k *fakeKubelet, c *card) {
	t.Helper()
	server := deviceplugin.Server{
		Dir: k.dir, Resource: resource, Look: c.look, Refresh: 5 * time.Millisecond, Poll: 5 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func all(devices []*api.Device) bool { return len(healthy(devices)) == 3 }

func TestPoolIsOfferedAndGiven(t *testing.T) {
	k, c := newKubelet(t), newCard()
	k.start()
	serve(t, k, c)
	devices := k.wait(resource, "three devices", all)
	if diff := cmp.Diff([]string{"0000:11:10.0", "0000:11:10.2", "0000:11:10.4"}, healthy(devices)); diff != "" {
		t.Error(diff)
	}
	for _, device := range devices {
		if nodes := device.GetTopology().GetNodes(); len(nodes) != 1 || nodes[0].GetID() != 1 {
			t.Errorf("NUMA nodes of %s: %v", device.GetID(), nodes)
		}
	}
	granted, err := k.allocate(resource, 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"PCIDEVICE_VIRTNODE_IO_FAST-POOL": "0000:11:10.0,0000:11:10.2"}, granted.GetEnvs()); diff != "" {
		t.Error(diff)
	}
	var nodes []string
	for _, node := range granted.GetDevices() {
		nodes = append(nodes, node.GetHostPath()+" "+node.GetContainerPath()+" "+node.GetPermissions())
	}
	if diff := cmp.Diff([]string{"/dev/vfio/vfio /dev/vfio/vfio rw", "/dev/vfio/20 /dev/vfio/20 rw", "/dev/vfio/21 /dev/vfio/21 rw"}, nodes); diff != "" {
		t.Error(diff)
	}
}

// TestUseTakesNoCapacity has VFs as they look while pods have them.
func TestUseTakesNoCapacity(t *testing.T) {
	k, c := newKubelet(t), newCard()
	c.change(func(c *card) {
		c.pf.VFs[0].Users = []sriov.User{{Source: "/proc/812/fd/7", Detail: "held"}}
		c.pool.Driver = ""
		for i := range c.pf.VFs {
			c.pf.VFs[i].Driver = "igbvf" // and the interface is in the pod
		}
	})
	k.start()
	serve(t, k, c)
	k.wait(resource, "three devices", all)
	granted, err := k.allocate(resource, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(granted.GetDevices()) != 0 || len(granted.GetEnvs()) != 1 {
		t.Errorf("got %v", granted)
	}
}

func TestHealthFollowsTheHost(t *testing.T) {
	const first = "0000:11:10.0"
	for name, test := range map[string]struct {
		spoil func(*card)
		left  int
		want  string // the problem of the first
	}{
		"the PF has no link":             {func(c *card) { c.pf.LinkDown = true }, 0, "0000:01:00.0 (eth0) has no link"},
		"no driver":                      {func(c *card) { c.pf.VFs[0].Driver = "" }, 2, "no driver is bound"},
		"another driver":                 {func(c *card) { c.pf.VFs[0].Driver = "igbvf" }, 2, "driver igbvf is bound, and not the one of pool fast"},
		"a neighbour in its group":       {func(c *card) { c.pf.VFs[0].Neighbours = []string{"0000:00:1f.0"} }, 2, "shares IOMMU group 20 with 0000:00:1f.0"},
		"no group":                       {func(c *card) { c.pf.VFs[0].IOMMUGroup = nil }, 2, "is in no IOMMU group"},
		"the pool wants a kernel driver": {func(c *card) { c.pool.Driver = "" }, 0, "driver vfio-pci is bound, and not the one of pool fast"},
	} {
		t.Run(name, func(t *testing.T) {
			k, c := newKubelet(t), newCard()
			k.start()
			serve(t, k, c)
			k.wait(resource, "three devices", all)
			c.change(test.spoil)
			devices := k.wait(resource, "unhealthy ones", func(d []*api.Device) bool { return len(healthy(d)) == test.left })
			if len(devices) != 3 {
				t.Errorf("the capacity is %d", len(devices))
			}
			seen, _ := c.look(t.Context())
			if seen[0].Address != first || !strings.Contains(seen[0].Problem, test.want) {
				t.Errorf("got %+v", seen[0])
			}
			c.change(func(c *card) { c.pool, c.pf = newCard().pool, newCard().pf })
			k.wait(resource, "three devices again", all)
		})
	}
}

// TestPoolGrowsWithoutRestart also has a VF that is gone.
func TestPoolGrowsWithoutRestart(t *testing.T) {
	k, c := newKubelet(t), newCard()
	k.start()
	serve(t, k, c)
	k.wait(resource, "three devices", all)
	c.change(func(c *card) { c.pool.VFs = []int{0, 1, 2, 3, 9} })
	k.wait(resource, "four devices", func(d []*api.Device) bool { return len(healthy(d)) == 4 })
	c.change(func(c *card) { c.pf.VFs = c.pf.VFs[1:] })
	k.wait(resource, "three devices", all)
}

// TestStaleDeviceIsNotGiven changes the host after the kubelet has chosen: the
// server looks anew.
func TestStaleDeviceIsNotGiven(t *testing.T) {
	k, c := newKubelet(t), newCard()
	k.start()
	serve(t, k, c)
	devices := k.wait(resource, "three devices", all)
	c.change(func(c *card) { c.pf.VFs[0].Driver = "igbvf" })
	k.mu.Lock()
	k.resources[resource].devices = devices // the kubelet's news are late
	k.mu.Unlock()
	if _, err := k.allocate(resource, 3); err == nil || !strings.Contains(err.Error(), "0000:11:10.0: driver igbvf is bound") {
		t.Errorf("got %v", err)
	}
	client := k.resources[resource].client
	_, err := api.NewDevicePluginClient(client).Allocate(t.Context(), &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"0000:11:10.6"}}},
	})
	if err == nil || !strings.Contains(err.Error(), "0000:11:10.6 is not in the pool") {
		t.Errorf("got %v", err)
	}
}

// TestUnreadableHostKeepsTheOffer: not to know is not to have nothing.
func TestUnreadableHostKeepsTheOffer(t *testing.T) {
	k, c := newKubelet(t), newCard()
	k.start()
	serve(t, k, c)
	k.wait(resource, "three devices", all)
	c.change(func(c *card) { c.err, c.pf.VFs = errors.New("cannot be read"), nil })
	if _, err := k.allocate(resource, 1); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("got %v", err)
	}
	k.mu.Lock()
	lists := k.resources[resource].lists
	k.mu.Unlock()
	k.wait(resource, "three devices", all)
	if lists != 1 {
		t.Errorf("the kubelet was sent %d lists", lists)
	}
}

func TestKubeletThatStartsIsFound(t *testing.T) {
	k, c := newKubelet(t), newCard()
	serve(t, k, c) // before there is a kubelet
	for range 3 {
		k.start()
		k.wait(resource, "three devices", all)
		if _, err := k.allocate(resource, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusalIsTriedAgain(t *testing.T) {
	k, c := newKubelet(t), newCard()
	k.refuse = errors.New("not now")
	k.start()
	serve(t, k, c)
	socket := filepath.Join(k.dir, "nodeagent-virtnode.io_fast-pool.sock")
	late := time.After(10 * time.Second)
	for tick := time.Tick(time.Millisecond); ; {
		if _, err := os.Lstat(socket); err == nil {
			break
		}
		select {
		case <-tick:
		case <-late:
			t.Fatal("the server does not listen")
		}
	}
	k.mu.Lock()
	k.refuse = nil
	k.mu.Unlock()
	k.wait(resource, "three devices", all)
}

func TestLongSocketIsRefused(t *testing.T) {
	server := deviceplugin.Server{Dir: "/" + strings.Repeat("d", 100), Resource: resource, Look: newCard().look}
	if err := server.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "the most is 107") {
		t.Errorf("got %v", err)
	}
}

// cardTree writes a PF with VFs on vfio-pci below a root.
func cardTree(t *testing.T, dir, bus string, vfs int) {
	t.Helper()
	devices := filepath.Join(dir, "sys/bus/pci/devices")
	pf := filepath.Join(devices, "0000:"+bus+":00.0")
	write := func(name, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.Symlink(target, name)); err != nil {
			t.Fatal(err)
		}
	}
	write(pf+"/sriov_totalvfs", "7\n")
	write(pf+"/sriov_numvfs", fmt.Sprintln(vfs))
	write(pf+"/numa_node", "0\n")
	for index := range vfs {
		vf := fmt.Sprintf("0000:%s:10.%d", bus, index)
		group := filepath.Join(dir, "sys/kernel/iommu_groups", bus+strconv.Itoa(index))
		write(filepath.Join(devices, vf, "class"), "0x020000\n")
		link(filepath.Join(devices, vf, "driver"), "../../drivers/vfio-pci")
		link(filepath.Join(devices, vf, "iommu_group"), "../../../../kernel/iommu_groups/"+bus+strconv.Itoa(index))
		link(filepath.Join(group, "devices", vf), "../../../../bus/pci/devices/"+vf)
		link(fmt.Sprintf("%s/virtfn%d", pf, index), "../"+vf)
	}
}

// TestOffersFollowThePolicies has a resource of two cards, which grows, and one
// that comes and goes, while the kubelet runs on.
func TestOffersFollowThePolicies(t *testing.T) {
	dir := t.TempDir()
	cardTree(t, dir, "01", 3)
	cardTree(t, dir, "02", 3)
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	k := newKubelet(t)
	k.start()
	offers := deviceplugin.NewOffers(k.dir, root, 5*time.Millisecond, 5*time.Millisecond, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { offers.Run(ctx) })
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	pool := func(resource string, vfs ...int) sriov.Pool {
		return sriov.Pool{Name: "p", VFs: vfs, Driver: "vfio-pci", DevicePlugin: true, Resource: resource}
	}
	silent := pool("virtnode.io/silent", 2)
	silent.DevicePlugin = false
	count := func(n int) func([]*api.Device) bool {
		return func(d []*api.Device) bool { return len(healthy(d)) == n }
	}
	first := sriov.Spec{PF: "0000:01:00.0", Pools: []sriov.Pool{pool("virtnode.io/a", 0), pool("virtnode.io/b", 1), silent}}
	second := sriov.Spec{PF: "0000:02:00.0", Pools: []sriov.Pool{pool("virtnode.io/a", 0, 1)}}
	offers.Set([]sriov.Spec{first, second})
	k.wait("virtnode.io/a", "devices of both cards", count(3))
	k.wait("virtnode.io/b", "its device", count(1))
	if _, err := k.allocate("virtnode.io/b", 1); err != nil {
		t.Fatal(err)
	}
	second.Pools[0].VFs = []int{0, 1, 2}
	first.Pools = append(first.Pools[:1], silent)
	offers.Set([]sriov.Spec{first, second})
	k.wait("virtnode.io/a", "one more", count(4))
	k.wait("virtnode.io/b", "nothing", count(0))
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.resources["virtnode.io/silent"] != nil {
		t.Error("a pool is offered that nobody wants to be")
	}
}

// fakeLister is the kubelet's other service.
type fakeLister struct {
	pods.UnimplementedPodResourcesListerServer
	err error
}

func (l fakeLister) List(context.Context, *pods.ListPodResourcesRequest) (*pods.ListPodResourcesResponse, error) {
	return &pods.ListPodResourcesResponse{PodResources: []*pods.PodResources{
		{Namespace: "vms", Name: "a", Containers: []*pods.ContainerResources{
			{Devices: []*pods.ContainerDevices{{ResourceName: resource, DeviceIds: []string{"0000:11:10.0", "0000:11:10.2"}}}},
			{DynamicResources: []*pods.DynamicResource{{ClaimResources: []*pods.ClaimResource{{DeviceName: "0000-11-10-4"}, {DeviceName: "gpu0"}}}}},
		}},
		{Namespace: "vms", Name: "b", Containers: []*pods.ContainerResources{{}}},
	}}, l.err
}

func TestPodsThatHaveDevices(t *testing.T) {
	dir, err := os.MkdirTemp("", "pods")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "var/lib/kubelet/pod-resources"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	kubelet := deviceplugin.Pods{Root: root}
	if devices, err := kubelet.Devices(t.Context()); len(devices) != 0 || err != nil {
		t.Errorf("without kubelet: %v, %v", devices, err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, kubelet.Source()))
	if err != nil {
		t.Fatal(err)
	}
	lister := &fakeLister{}
	server := grpc.NewServer()
	pods.RegisterPodResourcesListerServer(server, lister)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(running.Wait)
	t.Cleanup(server.Stop)
	devices, err := kubelet.Devices(t.Context())
	if diff := cmp.Diff(map[string][]string{"0000:11:10.0": {"vms/a"}, "0000:11:10.2": {"vms/a"}, "0000:11:10.4": {"vms/a"}, "gpu0": {"vms/a"}}, devices); diff != "" || err != nil {
		t.Error(diff, err)
	}
	lister.err = errors.New("overloaded")
	if _, err := kubelet.Devices(t.Context()); err == nil || !strings.Contains(err.Error(), "overloaded") {
		t.Errorf("got %v", err)
	}
}
