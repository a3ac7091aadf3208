package main

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/agent"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/internal/readiness"
	"github.com/virtnode/nodeagent/pkg/metrics"
)

// publishSplay is the longest that an agent waits with its first request.
const publishSplay = 10 * time.Second

// publishing is what is published to the cluster, and by whom.
type publishing struct {
	publisher *node.Publisher // nil: nothing is
	features  *node.FeatureFile
	custom    []node.Custom
}

func (p *publishing) observe(look node.Look) {
	if p.publisher != nil {
		p.publisher.Observe(look)
	}
	p.features.Observe(look)
}

func (p *publishing) observeNetworks(told *networksTold) {
	if p.publisher != nil {
		p.publisher.ObserveNetworks(told.reports, told.managed)
	}
	p.features.ObserveNetworks(told.reports, told.managed)
}

// inCluster reports whether there is a Node to write to, and a way to it.
func inCluster(c config.Kubernetes) bool {
	return os.Getenv("NODE_NAME") != "" && (c.Kubeconfig != "" || os.Getenv("KUBERNETES_SERVICE_HOST") != "")
}

// startPublish writes labels, conditions and the NodeVirtualization, if the
// host is a node and the configuration wants it, and the file for NFD. What was
// published stays where it is not wanted any more: nodeagent uninstall removes
// it.
func (d *daemon) startPublish(c config.Kubernetes, custom []node.Custom) {
	p := &publishing{features: d.newFeatures(c), custom: custom}
	publish := agent.Task{Name: "publish", Run: func(ctx context.Context, ready func()) error {
		ready()
		<-ctx.Done()
		return nil
	}}
	if c.Publish && inCluster(c) {
		p.publisher = node.NewPublisher(node.Options{
			Config: node.ConfigOf(c.Kubeconfig), Node: os.Getenv("NODE_NAME"),
			Splay: publishSplay, Random: rand.Float64, Now: time.Now, Log: d.log.With(slog.String("task", "publish")),
		})
		publish.Run = p.publisher.Run
	}
	d.publishing.Store(p)
	if state, probed := d.loop.State(); probed {
		d.publishLook(state)
	}
	if told := d.networks.Load(); told != nil {
		p.observeNetworks(told)
	}
	d.tasks.Start(publish)
	d.tasks.Start(agent.Task{Name: "features", Run: p.features.Run})
}

// newFeatures keeps the labels in a file for NFD. Only one of NFD and the agent
// labels the Node.
func (d *daemon) newFeatures(c config.Kubernetes) *node.FeatureFile {
	use := node.NoFeatures
	switch {
	case !c.NFD.Write:
	case c.Publish && inCluster(c):
		use = node.FeaturesOnly
	default:
		use = node.FeaturesAsLabels
	}
	return node.NewFeatureFile(func() (*os.Root, error) {
		dir, err := d.root.Resolve(c.NFD.Directory)
		if err != nil {
			return nil, err
		}
		return os.OpenRoot(dir)
	}, use, time.Now, d.log.With(slog.String("task", "features")))
}

// publishNetworks hands on what became of the cluster's HostNetworks, and keeps
// it for a publisher that comes later.
func (d *daemon) publishNetworks(reports []v1alpha1.NetworkReport, managed bool) {
	told := &networksTold{reports, managed}
	d.networks.Store(told)
	if p := d.publishing.Load(); p != nil {
		p.observeNetworks(told)
	}
}

// networksTold is what was told of HostNetworks last.
type networksTold struct {
	reports []v1alpha1.NetworkReport
	managed bool
}

// publishLook hands a look at the host on.
func (d *daemon) publishLook(state readiness.State) {
	if p := d.publishing.Load(); p != nil {
		p.observe(node.Look{Report: state.Report.Report, Custom: p.custom})
	}
}

func (d *daemon) publishState() *metrics.Publish {
	p := d.publishing.Load()
	if p == nil || p.publisher == nil {
		return nil
	}
	state := p.publisher.State()
	return &metrics.Publish{
		Up: state.Up, Writes: countsOf(state.Writes), Errors: countsOf(state.Errors), Conflicts: state.Conflicts, InConflict: state.InConflict,
		Labels: state.Labels, LabelsCut: state.LabelsCut, LastSuccess: state.LastSuccess,
	}
}

func countsOf(counts map[string]uint64) []metrics.NamedCount {
	var all []metrics.NamedCount
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, metrics.NamedCount{Name: name, Count: counts[name]})
	}
	return all
}
