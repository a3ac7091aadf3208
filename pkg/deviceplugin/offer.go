package deviceplugin

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// PluginsDir is the kubelet's folder for device plugins, on the host.
const PluginsDir = "/var/lib/kubelet/device-plugins"

// Offers are the pools that policies want to be offered, a server for each
// resource. Several pools, also of several cards, may be one resource.
type Offers struct {
	Dir           string // PluginsDir, as this process sees it
	Root          *hostfs.Root
	Refresh, Poll time.Duration
	Log           *slog.Logger

	mu      sync.Mutex
	wanted  map[string][]offer // by resource
	changed chan struct{}      // is closed by the next change
}

// offer is one pool of a resource.
type offer struct {
	pf   string
	pool sriov.Pool
}

// NewOffers returns none yet.
func NewOffers(dir string, root *hostfs.Root, refresh, poll time.Duration, log *slog.Logger) *Offers {
	return &Offers{Dir: dir, Root: root, Refresh: refresh, Poll: poll, Log: log, changed: make(chan struct{})}
}

// Set makes the pools of specs that are to be offered the ones that are. The
// servers of what stays go on.
func (o *Offers) Set(specs []sriov.Spec) {
	wanted := make(map[string][]offer)
	for _, spec := range specs {
		for _, pool := range spec.Pools {
			if pool.DevicePlugin {
				wanted[pool.Resource] = append(wanted[pool.Resource], offer{spec.PF, pool})
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wanted = wanted
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Offers) now() (wanted map[string][]offer, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wanted, o.changed
}

// Run serves until ctx ends.
func (o *Offers) Run(ctx context.Context) {
	var servers sync.WaitGroup
	defer servers.Wait()
	running := make(map[string]context.CancelFunc)
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	for {
		wanted, changed := o.now()
		for resource, stop := range running {
			if wanted[resource] == nil {
				stop()
				delete(running, resource)
			}
		}
		for _, resource := range slices.Sorted(maps.Keys(wanted)) {
			if running[resource] != nil {
				continue
			}
			own, stop := context.WithCancel(ctx)
			running[resource] = stop
			server := Server{Dir: o.Dir, Resource: resource, Look: o.look(resource), Refresh: o.Refresh, Poll: o.Poll, Log: o.Log}
			servers.Go(func() {
				if err := server.Run(own); err != nil {
					o.Log.Error("resource is not offered", "resource", resource, "error", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// look returns what looks at the VFs of all pools of a resource.
func (o *Offers) look(resource string) func(context.Context) ([]Device, error) {
	return func(context.Context) ([]Device, error) {
		wanted, _ := o.now()
		var all []Device
		for _, offer := range wanted[resource] {
			pf, err := sriov.Inspect(o.Root, offer.pf)
			if err != nil {
				return nil, err
			}
			all = append(all, Devices(offer.pool, pf)...)
		}
		return all, nil
	}
}
