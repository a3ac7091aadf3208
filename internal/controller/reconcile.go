package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// How often everything is looked at without a cause, and sooner while
// something that nobody watches is missing.
const (
	resync = 5 * time.Minute
	retry  = 30 * time.Second
)

// whole is the one thing that is reconciled: turns depend on all policies and
// all nodes.
type whole struct {
	client client.Client // reads what is cached
	live   client.Reader // asks the API server
	now    func() time.Time
	pause  time.Duration // after a look, in which the cache is told of what was written
	log    *slog.Logger

	ended   time.Time // when the last look did
	offered offered
}

// Reconcile brings everything to what it shall be, when the last time is long
// enough ago.
func (w *whole) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	if early := w.pause - w.now().Sub(w.ended); early > 0 {
		return reconcile.Result{RequeueAfter: early}, nil
	}
	result, err := w.look(ctx)
	if err == nil { // else the queue's own pauses grow
		w.ended = w.now()
	}
	return result, err
}

func (w *whole) look(ctx context.Context) (reconcile.Result, error) {
	const asCached = client.UnsafeDisableDeepCopy // what nodes are and say is many, and only read
	var policies v1alpha1.HostNetworkList
	var objects v1alpha1.NodeVirtualizationList
	var nodes metav1.PartialObjectMetadataList
	nodes.SetGroupVersionKind(nodeKind.GroupVersion().WithKind("NodeList"))
	if err := errors.Join(w.client.List(ctx, &policies), w.client.List(ctx, &objects, asCached), w.client.List(ctx, &nodes, asCached)); err != nil {
		return reconcile.Result{}, fmt.Errorf("list what is to be looked at: %w", err)
	}
	slices.SortFunc(policies.Items, func(a, b v1alpha1.HostNetwork) int { return strings.Compare(a.Name, b.Name) })
	f := newFleet(nodes.Items, objects.Items)
	var all, sound, living []*v1alpha1.HostNetwork
	for i := range policies.Items {
		policy := &policies.Items[i]
		policy.APIVersion, policy.Kind = v1alpha1.APIVersion, v1alpha1.KindHostNetwork
		original := policy.DeepCopy()
		policy.Default()
		all = append(all, original)
		if len(policy.Validate()) == 0 {
			living = append(living, policy)
			if policy.DeletionTimestamp.IsZero() {
				sound = append(sound, policy)
			}
		}
	}
	// What is deleted offers its networks until its nodes are restored.
	attachments, err := w.offer(ctx, slices.DeleteFunc(living, func(p *v1alpha1.HostNetwork) bool {
		return !p.DeletionTimestamp.IsZero() && len(f.unrestored(p)) == 0
	}))
	errs := []error{err}
	turns := turnsOf(sound, f)
	for _, policy := range all {
		errs = append(errs, w.policy(ctx, policy, f, turns[policy.Name], attachments[policy.Name]))
	}
	errs = append(errs, w.sweep(ctx, f, objects.Items))
	return reconcile.Result{RequeueAfter: lookAgain(attachments)}, settled(errs)
}

// settled leaves out what the next look at the cache settles by itself.
func settled(errs []error) error {
	return errors.Join(slices.DeleteFunc(errs, apierrors.IsConflict)...)
}

// policy writes the status of one policy, and keeps it until it is restored.
func (w *whole) policy(ctx context.Context, policy *v1alpha1.HostNetwork, f fleet, turns []v1alpha1.Turn, attachments *metav1.Condition) error {
	if !policy.DeletionTimestamp.IsZero() && len(f.unrestored(policy)) == 0 {
		return w.finalizer(ctx, policy, controllerutil.RemoveFinalizer)
	}
	if policy.DeletionTimestamp.IsZero() {
		if err := w.finalizer(ctx, policy, controllerutil.AddFinalizer); err != nil {
			return err
		}
	}
	defaulted := policy.DeepCopy()
	defaulted.Default()
	status := statusOf(defaulted, f, turns, attachments, metav1.NewTime(w.now()))
	if equality.Semantic.DeepEqual(status, policy.Status) {
		return nil
	}
	for _, turn := range status.Turns {
		if !slices.Contains(policy.Status.Turns, turn) {
			w.log.Info("turn given", "policy", policy.Name, "node", turn.Node, "plan", turn.Plan)
		}
	}
	policy.Status = status
	if err := w.client.Status().Update(ctx, policy); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write status of HostNetwork %s: %w", policy.Name, err)
	}
	return nil
}

func (w *whole) finalizer(ctx context.Context, policy *v1alpha1.HostNetwork, change func(client.Object, string) bool) error {
	before := policy.DeepCopy()
	if !change(policy, v1alpha1.RestoreFinalizer) {
		return nil
	}
	err := w.client.Patch(ctx, policy, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write finalizer of HostNetwork %s: %w", policy.Name, err)
	}
	return nil
}

// sweep removes what vanished nodes have left. Usually their owner reference
// does: not where the object was restored from a backup, or its node made anew.
func (w *whole) sweep(ctx context.Context, f fleet, objects []v1alpha1.NodeVirtualization) error {
	var errs []error
	for i := range objects {
		object := &objects[i]
		if _, exists := f.labels[object.Name]; exists {
			continue
		}
		node := &metav1.PartialObjectMetadata{}
		node.SetGroupVersionKind(nodeKind)
		if err := w.live.Get(ctx, client.ObjectKey{Name: object.Name}, node); !apierrors.IsNotFound(err) {
			errs = append(errs, err) // it has just come, or nobody can tell
			continue
		}
		uid := object.UID
		if err := w.client.Delete(ctx, object, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("remove NodeVirtualization %s: %w", object.Name, err))
			continue
		}
		w.log.Info("NodeVirtualization of a vanished node removed", "node", object.Name)
	}
	return errors.Join(errs...)
}
