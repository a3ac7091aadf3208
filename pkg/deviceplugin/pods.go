package deviceplugin

import (
	"context"
	"fmt"
	"regexp"
	"time"

	api "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	podsSocket  = "/var/lib/kubelet/pod-resources/kubelet.sock"
	podsTimeout = 5 * time.Second
	maxReply    = 16 << 20
)

// Pods asks a host's kubelet which pods have which devices.
type Pods struct{ Root *hostfs.Root }

// Source is the kubelet's socket.
func (p Pods) Source() string { return podsSocket }

// Devices returns, by the device's ID, the pods that have it. On a host
// without kubelet none have any.
func (p Pods) Devices(ctx context.Context) (map[string][]string, error) {
	if there, err := p.Root.Exists(podsSocket); err != nil || !there {
		return nil, err
	}
	path, err := p.Root.Resolve(podsSocket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, podsTimeout)
	defer cancel()
	client, err := dial(path)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // the answer is what counts
	reply, err := api.NewPodResourcesListerClient(client).List(ctx, &api.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask the kubelet at %s: %w", podsSocket, err)
	}
	return devicesOf(reply), nil
}

// dashedAddress is a PCI address as DRA drivers have to write it.
var dashedAddress = regexp.MustCompile(`^([0-9a-f]{4})-([0-9a-f]{2})-([0-9a-f]{2})-([0-7])$`)

func devicesOf(reply *api.ListPodResourcesResponse) map[string][]string {
	devices := make(map[string][]string)
	for _, pod := range reply.GetPodResources() {
		name := pod.GetNamespace() + "/" + pod.GetName()
		for _, container := range pod.GetContainers() {
			for _, device := range container.GetDevices() {
				for _, id := range device.GetDeviceIds() {
					devices[id] = append(devices[id], name)
				}
			}
			for _, claim := range container.GetDynamicResources() {
				for _, resource := range claim.GetClaimResources() {
					id := dashedAddress.ReplaceAllString(resource.GetDeviceName(), "$1:$2:$3.$4")
					devices[id] = append(devices[id], name)
				}
			}
		}
	}
	return devices
}
