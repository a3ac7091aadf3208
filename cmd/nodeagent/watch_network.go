package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/agent"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/deviceplugin"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// How often the VFs that are offered to the kubelet are looked at, and whether
// there is another kubelet.
const (
	pluginRefresh = 2 * time.Second
	pluginPoll    = time.Second
)

// startNetwork applies the policies of the configuration, or else those of the
// cluster, and watches over them. Without any, and with nothing of its own on
// the host, it does nothing.
func (d *daemon) startNetwork(whole config.Config) {
	c := whole.Network
	d.tasks.Start(agent.Task{Name: "network", Run: func(ctx context.Context, ready func()) (err error) {
		d.watch.Store(nil)
		cluster := d.hostNetworks(whole)
		if cluster == nil {
			d.publishNetworks(nil, false)
		}
		if _, err := os.Stat(c.StateDirectory); cluster == nil && len(c.Policies) == 0 && errors.Is(err, fs.ErrNotExist) {
			ready()
			<-ctx.Done()
			return nil
		}
		n, closeIt, err := openNetwork(d.root, c.StateDirectory, c.NodeLabels, d.log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeIt()) }()
		w := &network.Watch{
			Network: n, Interval: c.Interval, Repair: c.Repair,
			Policies: func() ([]v1alpha1.HostNetwork, error) {
				files, err := policyFiles(c.Policies)
				if err != nil {
					return nil, err
				}
				return readPolicies(files, nil)
			},
		}
		plugins, err := d.root.Resolve(deviceplugin.PluginsDir)
		if err != nil {
			return err
		}
		offers := deviceplugin.NewOffers(plugins, d.root, pluginRefresh, pluginPoll, d.log)
		w.Offer = offers.Set
		ctx, cancel := context.WithCancel(ctx)
		var beside sync.WaitGroup
		beside.Go(func() { offers.Run(ctx) })
		if cluster != nil {
			w.Policies, w.Permit, w.Wake, w.Looked = cluster.Policies, cluster.Permit, cluster.Wake(), cluster.Looked
			beside.Go(func() { cluster.Run(ctx) })
		}
		defer beside.Wait()
		defer cancel()
		d.watch.Store(&watchedNetwork{w, cluster})
		return w.Run(ctx, ready)
	}})
}

// hostNetworks returns the policies of the cluster: nil on a host that is in
// none, and where the configuration names policies itself. The two do not mix,
// so that one place says what a node's network shall be.
func (d *daemon) hostNetworks(c config.Config) *node.HostNetworks {
	if len(c.Network.Policies) > 0 || !inCluster(c.Kubernetes) {
		return nil
	}
	report := func(reports []v1alpha1.NetworkReport) { d.publishNetworks(reports, true) }
	return node.NewHostNetworks(node.ConfigOf(c.Kubernetes.Kubeconfig), os.Getenv("NODE_NAME"), report, d.log.With(slog.String("task", "network")))
}

// watchedNetwork is who watches over the network, and where the policies come
// from.
type watchedNetwork struct {
	*network.Watch
	cluster *node.HostNetworks // nil: from the configuration
}

// networkState is what metrics tell of the network, nil while it is left alone.
func (d *daemon) networkState() *metrics.Network {
	w := d.watch.Load()
	if w == nil {
		return nil
	}
	status := w.Status()
	told := &metrics.Network{
		Last: status.Checked, Checked: status.Error == "" && !status.Checked.IsZero(),
		Drift: len(status.Drift), Refusals: len(status.Refusals), Stuck: status.Last.Result == reconcile.Stuck,
		Plans: uint64(status.Plans), Applies: uint64(status.Applies), Rollbacks: uint64(status.Rollbacks),
	}
	for _, pool := range status.Pools {
		told.VFs = append(told.VFs, metrics.VFCount{PF: pool.PF, Pool: pool.Pool, State: pool.State, Count: uint64(pool.Count)})
	}
	if w.cluster != nil {
		following := w.cluster.State()
		told.Cluster = &metrics.Following{Up: following.Up, Errors: countsOf(following.Errors)}
	}
	return told
}

// judgeNetwork adds to a report what is found by who watches over the network.
func (d *daemon) judgeNetwork(report *nodestack.Report) {
	if w := d.watch.Load(); w != nil {
		report.Add(d.profile.Load().GradeBy(network.Checks(), w.Status().Findings()))
	}
}
