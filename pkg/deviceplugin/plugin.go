package deviceplugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// plugin answers the kubelet about one resource.
type plugin struct {
	api.UnimplementedDevicePluginServer

	resource string
	look     func(ctx context.Context) ([]Device, error)
	stop     <-chan struct{} // ends the streams

	mu      sync.Mutex
	devices []Device
	changed chan struct{} // is closed by the next change
}

func newPlugin(resource string, look func(context.Context) ([]Device, error), stop <-chan struct{}) *plugin {
	return &plugin{resource: resource, look: look, stop: stop, changed: make(chan struct{})}
}

// refresh looks at the host. When it cannot be read, what was known holds on.
func (p *plugin) refresh(ctx context.Context) error {
	devices, err := p.look(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.EqualFunc(p.devices, devices, sameOffer) {
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.devices = devices
	return nil
}

// sameOffer reports whether the kubelet has nothing new to learn.
func sameOffer(a, b Device) bool {
	return a.Address == b.Address && (a.Problem == "") == (b.Problem == "") &&
		(a.NUMANode == nil) == (b.NUMANode == nil) && (a.NUMANode == nil || *a.NUMANode == *b.NUMANode)
}

func (p *plugin) offer() (devices []Device, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices, p.changed
}

// GetDevicePluginOptions says that nothing is wanted but what every plugin has.
func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch sends the devices, and again whenever they are others.
func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	for {
		devices, changed := p.offer()
		response := &api.ListAndWatchResponse{}
		for _, device := range devices {
			response.Devices = append(response.Devices, described(device))
		}
		if err := stream.Send(response); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-p.stop:
			return nil
		case <-stream.Context().Done():
			return nil
		}
	}
}

func described(device Device) *api.Device {
	d := &api.Device{ID: device.Address, Health: api.Healthy}
	if device.Problem != "" {
		d.Health = api.Unhealthy
	}
	if device.NUMANode != nil {
		d.Topology = &api.TopologyInfo{Nodes: []*api.NUMANode{{ID: int64(*device.NUMANode)}}}
	}
	return d
}

// Allocate looks at the devices anew: a pod that would get one that has changed
// meanwhile must not start.
func (p *plugin) Allocate(ctx context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	if err := p.refresh(ctx); err != nil {
		return nil, status.Errorf(codes.Unavailable, "%s: look at the devices: %v", p.resource, err)
	}
	devices, _ := p.offer()
	response := &api.AllocateResponse{}
	for _, container := range request.GetContainerRequests() {
		granted, err := p.grant(devices, container.GetDevicesIds())
		if err != nil {
			return nil, err
		}
		response.ContainerResponses = append(response.ContainerResponses, granted)
	}
	return response, nil
}

// grant says what a container needs to have devices.
func (p *plugin) grant(devices []Device, ids []string) (*api.ContainerAllocateResponse, error) {
	var nodes []string
	for _, id := range ids {
		i := slices.IndexFunc(devices, func(d Device) bool { return d.Address == id })
		if i < 0 {
			return nil, status.Errorf(codes.NotFound, "%s: %s is not in the pool", p.resource, id)
		}
		if problem := devices[i].Problem; problem != "" {
			return nil, status.Errorf(codes.FailedPrecondition, "%s: %s: %s", p.resource, id, problem)
		}
		for _, node := range devices[i].nodes() {
			if !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
	}
	if len(nodes) > 0 {
		nodes = append([]string{vfioContainer}, nodes...)
	}
	granted := &api.ContainerAllocateResponse{Envs: map[string]string{environment(p.resource): strings.Join(ids, ",")}}
	for _, node := range nodes {
		granted.Devices = append(granted.Devices, &api.DeviceSpec{HostPath: node, ContainerPath: node, Permissions: "rw"})
	}
	return granted, nil
}

// socketName is the plugin's in the kubelet's folder.
func socketName(resource string) string {
	return fmt.Sprintf("nodeagent-%s.sock", strings.NewReplacer("/", "_").Replace(resource))
}
