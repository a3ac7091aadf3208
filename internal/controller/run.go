package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

const (
	leaseName = "nodeagent-controller"
	// settle gathers what comes at the same time or while everything is looked at,
	// and bounds what the status of a policy, which every node watches, is written.
	settle = 500 * time.Millisecond
	// firstRetry and lastRetry bound the waits for a cluster that does not
	// answer, or does not know our kinds.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// tryTimeout and lookTimeout are for one that takes requests and never answers.
	tryTimeout  = 10 * time.Second
	lookTimeout = time.Minute
	// leaseTime bounds how long nobody leads when the one that did is gone without
	// a word, renewTime how long it leads without an answer. The lease is all that
	// is written at rest, so it is renewed more seldom than is usual.
	leaseTime, renewTime, renewPause = 30 * time.Second, 20 * time.Second, 5 * time.Second
	// ourRate and ourBurst are for a first look, which makes many definitions:
	// with the library's own limits it would not end within its time.
	ourRate, ourBurst = 50, 100
)

var nodeKind = schema.GroupVersionKind{Version: "v1", Kind: "Node"}

// Options are what the controller needs.
type Options struct {
	Config    *rest.Config
	Namespace string // of the lease
	Health    string // address of /healthz and /readyz; empty: none
	Log       *slog.Logger
}

// Run is the controller, as soon as no other one leads, until ctx ends or the
// lead is lost.
func Run(ctx context.Context, o Options) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	o.Config = rest.CopyConfig(o.Config)
	o.Config.QPS, o.Config.Burst = ourRate, ourBurst
	var ready atomic.Bool
	stop, err := serveHealth(o.Health, &ready)
	if err != nil {
		return err
	}
	defer stop()
	if !await(ctx, o, scheme) {
		return nil
	}
	ready.Store(true)
	logger := logr.FromSlogHandler(o.Log.Handler())
	ctrl.SetLogger(logger)
	ctx = klog.NewContext(ctx, logger)
	unnamed := true
	m, err := ctrl.NewManager(o.Config, manager.Options{
		Scheme: scheme, Logger: logger,
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: true, LeaderElectionID: leaseName, LeaderElectionNamespace: o.Namespace, LeaderElectionReleaseOnCancel: true,
		LeaseDuration: new(leaseTime), RenewDeadline: new(renewTime), RetryPeriod: new(renewPause),
		Cache:      cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: map[client.Object]cache.ByObject{&v1alpha1.NodeVirtualization{}: {Transform: networksOnly}}},
		Controller: controllerconfig.Controller{SkipNameValidation: &unnamed},
	})
	if err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	all := &whole{client: m.GetClient(), live: m.GetAPIReader(), now: time.Now, pause: settle, log: o.Log}
	err = builder.ControllerManagedBy(m).Named("hostnetworks").
		Watches(&v1alpha1.HostNetwork{}, everything()).
		Watches(&v1alpha1.NodeVirtualization{}, everything(), builder.WithPredicates(predicate.Funcs{UpdateFunc: reportsChanged})).
		WatchesMetadata(&corev1.Node{}, everything(), builder.WithPredicates(predicate.LabelChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, ReconciliationTimeout: lookTimeout}).
		Complete(all)
	if err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	o.Log.Info("controller started", "lease", o.Namespace+"/"+leaseName)
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("run the controller: %w", err)
	}
	return nil
}

// serveHealth answers /healthz from the start, and /readyz when the cluster
// knows our kinds: to be started again would not bring them.
func serveHealth(address string, ready *atomic.Bool) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve health: %w; choose an address with --health.listen-address", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready.Load() {
			http.Error(w, "waits for the cluster to answer and to know HostNetworks", http.StatusServiceUnavailable)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // until it is closed
	return func() { _ = server.Close() }, nil
}

// await returns true when the cluster answers, and knows our kinds; false when
// ctx has ended.
func await(ctx context.Context, o Options, scheme *runtime.Scheme) bool {
	wait := firstRetry
	for said := ""; ; {
		direct, err := client.New(o.Config, client.Options{Scheme: scheme})
		if err == nil {
			limited, cancel := context.WithTimeout(ctx, tryTimeout)
			err = errors.Join(
				direct.List(limited, &v1alpha1.HostNetworkList{}, client.Limit(1)),
				direct.List(limited, &v1alpha1.NodeVirtualizationList{}, client.Limit(1)))
			cancel()
		}
		if err == nil {
			return true
		}
		if err.Error() != said {
			said = err.Error()
			o.Log.Warn("the controller waits: is the API server there, and are the CRDs installed?", "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		wait = min(2*wait, lastRetry)
	}
}

// networksOnly keeps of a NodeVirtualization what the controller reads.
func networksOnly(object any) (any, error) {
	if full, ok := object.(*v1alpha1.NodeVirtualization); ok {
		full.ManagedFields = nil
		full.Status = v1alpha1.NodeVirtualizationStatus{Networks: full.Status.Networks}
	}
	return object, nil
}

// reportsChanged reports whether an agent has said something new of a network.
func reportsChanged(e event.UpdateEvent) bool {
	before, was := e.ObjectOld.(*v1alpha1.NodeVirtualization)
	now, is := e.ObjectNew.(*v1alpha1.NodeVirtualization)
	return !was || !is || !equality.Semantic.DeepEqual(before.Status.Networks, now.Status.Networks)
}

// everything maps each event to the one thing that is reconciled.
func everything() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	one := reconcile.Request{}
	one.Name = "everything"
	return handler.Funcs{
		CreateFunc:  func(_ context.Context, _ event.CreateEvent, q queue) { q.AddAfter(one, settle) },
		UpdateFunc:  func(_ context.Context, _ event.UpdateEvent, q queue) { q.AddAfter(one, settle) },
		DeleteFunc:  func(_ context.Context, _ event.DeleteEvent, q queue) { q.AddAfter(one, settle) },
		GenericFunc: func(_ context.Context, _ event.GenericEvent, q queue) { q.AddAfter(one, settle) },
	}
}
