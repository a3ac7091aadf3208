package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/network"
)

// HostNetworks are the policies of the cluster as one node sees them: those
// that select it, by the labels that it has in the cluster.
type HostNetworks struct {
	config  func() (*rest.Config, error)
	node    string
	failing *failures
	wake    chan struct{}
	report  func([]v1alpha1.NetworkReport)

	mu     sync.Mutex
	mirror *mirror       // nil: there is no way to the cluster yet
	look   *network.Look // the last; nil: there was none yet
}

// mirror follows what a node has to know of its cluster.
type mirror struct {
	policies cache.SharedIndexInformer
	self     cache.SharedIndexInformer // the node alone, its metadata alone
}

func (m *mirror) synced() bool { return m.policies.HasSynced() && m.self.HasSynced() }

// NewHostNetworks asks nobody yet. config returns the way to the cluster; it is
// asked again until it knows one. report is told what became of each policy,
// whenever that may have changed.
func NewHostNetworks(config func() (*rest.Config, error), node string, report func([]v1alpha1.NetworkReport), log *slog.Logger) *HostNetworks {
	h := &HostNetworks{config: config, node: node, wake: make(chan struct{}, 1), report: report}
	h.failing = newFailures("the cluster cannot be watched; what is known of it holds on", "the cluster can be watched again", log, h.awake)
	return h
}

// newMirror returns one that follows nothing yet.
func (h *HostNetworks) newMirror(config *rest.Config) (*mirror, error) {
	policies, err := policyLister(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for HostNetworks: %w", err)
	}
	nodes, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the node: %w", err)
	}
	resource := nodes.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	self := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = "metadata.name=" + h.node
			return resource.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "metadata.name=" + h.node
			return resource.Watch(ctx, options)
		},
	}
	m := new(mirror)
	m.policies, err = h.informer(policies, &v1alpha1.HostNetwork{}, "HostNetworks", func(before, now any) bool {
		return h.concerns(before.(*v1alpha1.HostNetwork), now.(*v1alpha1.HostNetwork))
	})
	if err != nil {
		return nil, err
	}
	m.self, err = h.informer(self, &metav1.PartialObjectMetadata{}, "the node's labels", func(before, now any) bool {
		return !maps.Equal(before.(*metav1.PartialObjectMetadata).Labels, now.(*metav1.PartialObjectMetadata).Labels)
	})
	return m, err
}

func policyLister(config *rest.Config) (*cache.ListWatch, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	version := schema.FromAPIVersionAndKind(v1alpha1.APIVersion, "").GroupVersion()
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return cache.NewFilteredListWatchFromClient(client, policies, "", func(*metav1.ListOptions) {}), nil
}

// informer mirrors objects, and wakes the network when one comes, goes, or has
// changed in what matters.
func (h *HostNetworks) informer(from *cache.ListWatch, kind runtime.Object, what string, matters func(before, now any) bool) (cache.SharedIndexInformer, error) {
	informer := cache.NewSharedIndexInformer(h.audible(from, what), kind, 0, nil)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { h.awake() },
		DeleteFunc: func(any) { h.awake() },
		UpdateFunc: func(before, now any) {
			if matters(before, now) {
				h.awake()
			}
		},
	})
	err = errors.Join(err,
		informer.SetTransform(func(object any) (any, error) {
			if has, err := meta.Accessor(object); err == nil {
				has.SetManagedFields(nil) // the larger part of it
			}
			return object, nil
		}),
		// What goes wrong is noted where it does.
		informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}))
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", what, err)
	}
	return informer, nil
}

// audible notes whether the cluster answers. The watch itself tries again, ever
// more slowly.
func (h *HostNetworks) audible(from *cache.ListWatch, what string) *cache.ListWatch {
	note := func(ctx context.Context, err error) {
		if ctx.Err() == nil {
			h.failing.note("watch "+what, err)
		}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			within, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			list, err := from.ListWithContext(within, options)
			note(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := answeredWatch(ctx, func(ctx context.Context) (watch.Interface, error) { return from.WatchWithContext(ctx, options) })
			note(ctx, err)
			return events, err
		},
	}
}

// Run watches the cluster until ctx ends.
func (h *HostNetworks) Run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.Logger{}) // what is to be said is noted
	m, connected := connect(ctx, h.config, h.newMirror, h.failing)
	if !connected {
		return
	}
	h.mu.Lock()
	h.mirror = m
	h.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() { m.policies.RunWithContext(ctx) })
	all.Go(func() { m.self.RunWithContext(ctx) })
	if cache.WaitForCacheSync(ctx.Done(), m.synced) {
		h.awake() // a cluster without policies announces none
	}
	all.Wait()
}

// Following is how the policies of the cluster come to a node.
type Following struct {
	Up     bool              // all is known, and changes are announced
	Errors map[string]uint64 // by reason
}

// State returns how that goes.
func (h *HostNetworks) State() Following {
	h.mu.Lock()
	m := h.mirror
	h.mu.Unlock()
	return Following{Up: m != nil && m.synced() && h.failing.first() == nil, Errors: h.failing.counts()}
}

// concerns reports whether a change of a policy concerns this node. Others'
// turns and the counts do not.
func (h *HostNetworks) concerns(before, now *v1alpha1.HostNetwork) bool {
	had, hadTurn := before.TurnOf(h.node)
	has, hasTurn := now.TurnOf(h.node)
	return before.Generation != now.Generation || before.UID != now.UID || before.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero() ||
		had != has || hadTurn != hasTurn
}

func (h *HostNetworks) awake() {
	select {
	case h.wake <- struct{}{}:
	default: // it is to look anyway
	}
}

// Wake receives when the network is to look again.
func (h *HostNetworks) Wake() <-chan struct{} { return h.wake }

// known returns the policies of the cluster, in order, and the node's labels.
func (h *HostNetworks) known() ([]v1alpha1.HostNetwork, map[string]string, error) {
	h.mu.Lock()
	m := h.mirror
	h.mu.Unlock()
	if m == nil || !m.synced() {
		if err := h.failing.first(); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", network.ErrUnknown, err)
		}
		return nil, nil, network.ErrUnknown
	}
	self, found, err := m.self.GetStore().GetByKey(h.node)
	if err != nil || !found {
		return nil, nil, errors.Join(fmt.Errorf("%w: the cluster has no node %s", network.ErrUnknown, h.node), err)
	}
	var all []v1alpha1.HostNetwork
	for _, object := range m.policies.GetStore().List() {
		policy := object.(*v1alpha1.HostNetwork).DeepCopy()
		policy.APIVersion, policy.Kind = v1alpha1.APIVersion, v1alpha1.KindHostNetwork
		policy.Default()
		all = append(all, *policy)
	}
	slices.SortFunc(all, func(a, b v1alpha1.HostNetwork) int { return strings.Compare(a.Name, b.Name) })
	return all, self.(*metav1.PartialObjectMetadata).Labels, nil
}

// Policies returns the policies that are for this node. One that is being
// deleted is for nobody. One that makes no sense is an error: to leave it out
// would be to restore what it was about.
func (h *HostNetworks) Policies() ([]v1alpha1.HostNetwork, error) {
	all, labels, err := h.known()
	if err != nil {
		return nil, err
	}
	var mine []v1alpha1.HostNetwork
	for _, policy := range all {
		selects, err := policy.Selects(labels)
		if err == nil && !selects || !policy.DeletionTimestamp.IsZero() {
			continue
		}
		if err := sense(&policy); err != nil {
			return nil, err
		}
		policy.Spec.NodeSelector = nil // it has been asked
		mine = append(mine, policy)
	}
	return mine, nil
}

// sense returns what is wrong with a policy.
func sense(policy *v1alpha1.HostNetwork) error {
	var bad []error
	for _, problem := range policy.Validate() {
		bad = append(bad, fmt.Errorf("HostNetwork %s: %s", policy.Name, problem))
	}
	return errors.Join(bad...)
}

// Permit says whether a policy's part of a plan may disrupt this node now:
// somebody has allowed it, and it is the node's turn. What held before a
// restart of the machine comes back without a turn, since nothing runs yet.
func (h *HostNetworks) Permit(policy *v1alpha1.HostNetwork, plan string, restart bool) bool {
	turn, has := policy.TurnOf(h.node)
	return policy.Permits(plan) && (restart || has && turn.Plan == plan && turn.Generation == policy.Generation)
}

// Looked takes what a look at the host has shown, and reports.
func (h *HostNetworks) Looked(look network.Look) {
	h.mu.Lock()
	h.look = &look
	h.mu.Unlock()
	h.report(h.Reports())
}

// Reports returns what became of each policy that is, or was, for this node.
// nil: it is not known yet.
func (h *HostNetworks) Reports() []v1alpha1.NetworkReport {
	all, labels, err := h.known()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || h.look == nil {
		return nil
	}
	return networkReports(all, labels, h.look)
}
