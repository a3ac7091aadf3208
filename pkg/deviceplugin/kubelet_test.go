package deviceplugin_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// fakeKubelet behaves as the device manager of a kubelet: it removes all
// sockets when it starts, asks those who register for their devices, keeps
// what each stream said last, and gives healthy devices to containers.
type fakeKubelet struct {
	api.UnimplementedRegistrationServer

	t      *testing.T
	dir    string
	refuse error // the answer to Register

	mu        sync.Mutex
	server    *grpc.Server
	ctx       context.Context
	stop      context.CancelFunc
	running   sync.WaitGroup
	resources map[string]*fakeResource
	changed   chan struct{} // closed by the next change
}

type fakeResource struct {
	client  *grpc.ClientConn
	devices []*api.Device
	given   map[string]bool
	lists   int // that have come
}

func newKubelet(t *testing.T) *fakeKubelet {
	t.Helper()
	dir, err := os.MkdirTemp("", "plugin") // shorter than t.TempDir: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	k := &fakeKubelet{t: t, dir: dir, changed: make(chan struct{})}
	t.Cleanup(func() {
		k.end()
		_ = os.RemoveAll(dir)
	})
	return k
}

// start is a start of the kubelet, or a restart.
func (k *fakeKubelet) start() {
	k.t.Helper()
	k.end()
	sockets, err := filepath.Glob(filepath.Join(k.dir, "*.sock"))
	for _, socket := range sockets {
		if removed := os.Remove(socket); !errors.Is(removed, fs.ErrNotExist) { // whose server has ended meanwhile
			err = errors.Join(err, removed)
		}
	}
	listener, listenErr := net.Listen("unix", filepath.Join(k.dir, "kubelet.sock"))
	if err = errors.Join(err, listenErr); err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resources = make(map[string]*fakeResource)
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.server = grpc.NewServer()
	api.RegisterRegistrationServer(k.server, k)
	k.running.Go(func() { _ = k.server.Serve(listener) })
}

// end ends the kubelet; its sockets stay, as after a crash.
func (k *fakeKubelet) end() {
	k.mu.Lock()
	server := k.server
	k.server = nil
	k.mu.Unlock()
	if server == nil {
		return
	}
	k.stop()
	server.Stop()
	k.running.Wait()
}

func (k *fakeKubelet) tell() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// Register calls back before it answers, as the kubelet does.
func (k *fakeKubelet) Register(ctx context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	k.mu.Lock()
	refuse, own := k.refuse, k.ctx
	k.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	if request.GetVersion() != api.Version {
		return nil, fmt.Errorf("version %s", request.GetVersion())
	}
	client, err := grpc.NewClient("unix://"+filepath.Join(k.dir, request.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	plugin := api.NewDevicePluginClient(client)
	if _, err := plugin.GetDevicePluginOptions(ctx, &api.Empty{}, grpc.WaitForReady(true)); err != nil {
		return nil, err
	}
	stream, err := plugin.ListAndWatch(own, &api.Empty{})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	resource := &fakeResource{client: client, given: make(map[string]bool)}
	k.resources[request.GetResourceName()] = resource
	k.running.Go(func() { k.follow(stream, resource) })
	return &api.Empty{}, nil
}

func (k *fakeKubelet) follow(stream grpc.ServerStreamingClient[api.ListAndWatchResponse], resource *fakeResource) {
	for {
		list, err := stream.Recv()
		k.mu.Lock()
		if err != nil {
			resource.devices = nil // the endpoint is gone: nothing is to be had any more
			k.tell()
			k.mu.Unlock()
			_ = resource.client.Close()
			return
		}
		resource.devices = list.GetDevices()
		resource.lists++
		k.tell()
		k.mu.Unlock()
	}
}

// wait returns when the devices of a resource are as they shall be.
func (k *fakeKubelet) wait(resource, what string, done func(devices []*api.Device) bool) []*api.Device {
	k.t.Helper()
	late := time.After(20 * time.Second)
	for {
		k.mu.Lock()
		var devices []*api.Device
		if r := k.resources[resource]; r != nil {
			devices = r.devices
		}
		changed := k.changed
		k.mu.Unlock()
		if done(devices) {
			return devices
		}
		select {
		case <-changed:
		case <-late:
			k.t.Fatalf("waited in vain: %s; the kubelet has %v", what, devices)
		}
	}
}

// allocate gives healthy devices that are free to a container.
func (k *fakeKubelet) allocate(resource string, count int) (*api.ContainerAllocateResponse, error) {
	k.mu.Lock()
	r := k.resources[resource]
	var ids []string
	for _, device := range r.devices {
		if device.GetHealth() == api.Healthy && !r.given[device.GetID()] && len(ids) < count {
			ids = append(ids, device.GetID())
		}
	}
	k.mu.Unlock()
	if len(ids) < count {
		return nil, fmt.Errorf("%d of %d devices are to be had", len(ids), count)
	}
	response, err := api.NewDevicePluginClient(r.client).Allocate(k.t.Context(), &api.AllocateRequest{
		ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}},
	})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		r.given[id] = true
	}
	return response.GetContainerResponses()[0], nil
}

func healthy(devices []*api.Device) []string {
	var ids []string
	for _, device := range devices {
		if device.GetHealth() == api.Healthy {
			ids = append(ids, device.GetID())
		}
	}
	slices.Sort(ids)
	return ids
}
