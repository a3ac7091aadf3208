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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	node     string
	log      *slog.Logger
	policies cache.SharedIndexInformer
	self     cache.SharedIndexInformer // the node alone, its metadata alone
	wake     chan struct{}
	report   func([]v1alpha1.NetworkReport)

	mu   sync.Mutex
	look *network.Look // the last; nil: there was none yet
}

// NewHostNetworks asks nobody yet. report is told what became of each policy,
// whenever that may have changed.
func NewHostNetworks(config *rest.Config, node string, report func([]v1alpha1.NetworkReport), log *slog.Logger) (*HostNetworks, error) {
	h := &HostNetworks{node: node, log: log, wake: make(chan struct{}, 1), report: report}
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
			options.FieldSelector = "metadata.name=" + node
			return resource.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = "metadata.name=" + node
			return resource.Watch(ctx, options)
		},
	}
	h.policies, err = h.informer(policies, &v1alpha1.HostNetwork{}, "HostNetworks", func(before, now any) bool {
		return h.concerns(before.(*v1alpha1.HostNetwork), now.(*v1alpha1.HostNetwork))
	})
	if err != nil {
		return nil, err
	}
	h.self, err = h.informer(self, &metav1.PartialObjectMetadata{}, "the node's labels", func(before, now any) bool {
		return !maps.Equal(before.(*metav1.PartialObjectMetadata).Labels, now.(*metav1.PartialObjectMetadata).Labels)
	})
	return h, err
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
	informer := cache.NewSharedIndexInformer(audible(from, what, h.log), kind, 0, nil)
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

// audible says once when the cluster does not answer, or refuses, and once
// when it does again. The watch itself tries again, ever more slowly.
func audible(from *cache.ListWatch, what string, log *slog.Logger) *cache.ListWatch {
	var mu sync.Mutex
	var before metav1.StatusReason
	failing := false
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		reason := apierrors.ReasonForError(err)
		switch {
		case err == nil && failing:
			log.Info("the cluster can be watched again", "what", what)
		case err != nil && !errors.Is(err, context.Canceled) && (!failing || reason != before):
			if apierrors.IsNotFound(err) {
				err = fmt.Errorf("%w: are the CRDs installed?", err)
			}
			log.Warn("the cluster cannot be watched; what is known of it holds on", "what", what, "error", err)
		}
		failing, before = err != nil, reason
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := from.ListWithContext(ctx, options)
			note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := from.WatchWithContext(ctx, options)
			note(err)
			return events, err
		},
	}
}

// Run watches the cluster until ctx ends.
func (h *HostNetworks) Run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.Logger{}) // audible says what is to be said
	var all sync.WaitGroup
	all.Go(func() { h.policies.RunWithContext(ctx) })
	all.Go(func() { h.self.RunWithContext(ctx) })
	all.Wait()
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
	if !h.policies.HasSynced() || !h.self.HasSynced() {
		return nil, nil, network.ErrUnknown
	}
	self, found, err := h.self.GetStore().GetByKey(h.node)
	if err != nil || !found {
		return nil, nil, errors.Join(fmt.Errorf("%w: the cluster has no node %s", network.ErrUnknown, h.node), err)
	}
	var all []v1alpha1.HostNetwork
	for _, object := range h.policies.GetStore().List() {
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
