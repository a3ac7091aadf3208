package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// pageSize is how many Nodes are listed at once.
const pageSize = 500

// Uninstall removes all that agents have written to a cluster, of one node or,
// without a name, of all: also of nodes whose agent is gone. It tells what it
// removes, a line each, and can be repeated. What others own stays: so do
// HostNetworks, but without the finalizer that nobody is left to take off.
func Uninstall(ctx context.Context, config *rest.Config, node string, tell func(line string)) error {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100 // two requests per node
	config.Timeout = writeTimeout
	client, err := newAPI(config)
	if err != nil {
		return err
	}
	err = errors.Join(client.cleanNodes(ctx, node, tell), client.removeObjects(ctx, node, tell))
	if node == "" {
		err = errors.Join(err, client.freePolicies(ctx, tell))
	}
	return err
}

// page asks for a page of a list, of one object or of all.
func (a *api) page(ctx context.Context, resource, name, next string, into runtime.Object) error {
	options := metav1.ListOptions{Limit: pageSize, Continue: next}
	if name != "" {
		options.FieldSelector = metav1.ObjectNameField + "=" + name
	}
	return a.client(resource).Get().Resource(resource).VersionedParams(&options, a.params).Do(ctx).Into(into)
}

func (a *api) cleanNodes(ctx context.Context, name string, tell func(string)) error {
	var failures []error
	for next := ""; ; {
		var list corev1.NodeList
		if err := a.page(ctx, nodes, name, next, &list); err != nil {
			return errors.Join(append(failures, fmt.Errorf("list Nodes: %w", err))...)
		}
		for i := range list.Items {
			// One that has gone, or was replaced by another, meanwhile has nothing.
			if err := a.cleanNode(ctx, &list.Items[i], tell); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				failures = append(failures, fmt.Errorf("clean Node %s: %w", list.Items[i].Name, err))
			}
		}
		if next = list.Continue; next == "" {
			return errors.Join(failures...)
		}
	}
}

// cleanNode takes away what has the agent's names and belongs to nobody else:
// also what has no owner at all, since owners get lost when managedFields are
// reset. Of what others have written too, the agent lets go.
//
// Conditions are deleted by name rather than by no longer applying them: with
// the last one that the agent owns, the API server would take away those that
// nobody owns.
func (a *api) cleanNode(ctx context.Context, node *corev1.Node, tell func(string)) error {
	owned := ownersOf(node.ManagedFields)
	labels := make(map[string]any)
	for key := range node.Labels {
		if strings.HasPrefix(key, Prefix) && len(others(owned.labels[key])) == 0 {
			labels[key] = nil
		}
	}
	var conditions []map[string]string
	for _, kind := range []string{VirtualizationReady, HostNetworkReady} {
		if hasCondition(node, kind) && len(others(owned.conditions[kind])) == 0 {
			conditions = append(conditions, map[string]string{"type": kind, "$patch": "delete"})
		}
	}
	if len(labels) > 0 {
		if err := a.patchNode(ctx, &node, map[string]any{"metadata": map[string]any{"uid": node.UID, "labels": labels}}); err != nil {
			return err
		}
	}
	if len(conditions) > 0 {
		body := map[string]any{"metadata": map[string]any{"uid": node.UID}, "status": map[string]any{"conditions": conditions}}
		if err := a.patchNode(ctx, &node, body, "status"); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		tell(fmt.Sprintf("node %s: label %s", node.Name, key))
	}
	for _, condition := range conditions {
		tell(fmt.Sprintf("node %s: condition %s", node.Name, condition["type"]))
	}
	return a.letGo(ctx, node)
}

// patchNode patches the very node, and leaves what it is then.
func (a *api) patchNode(ctx context.Context, node **corev1.Node, patch map[string]any, subresource ...string) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	var after corev1.Node
	if err := a.core.Patch(types.StrategicMergePatchType).Resource(nodes).Name((*node).Name).SubResource(subresource...).Body(body).Do(ctx).Into(&after); err != nil {
		return err
	}
	*node = &after
	return nil
}

// letGo gives up what others own as well.
func (a *api) letGo(ctx context.Context, node *corev1.Node) error {
	owned := ownersOf(node.ManagedFields)
	owns := func(of map[string][]string) bool { return slices.ContainsFunc(slices.Collect(maps.Values(of)), ours) }
	var errs []error
	if owns(owned.labels) {
		_, err := a.apply(ctx, node.Name, labelsOf(node, nil))
		errs = append(errs, err)
	}
	if owns(owned.conditions) {
		_, err := a.apply(ctx, node.Name, conditionsOf(node, nil))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func hasCondition(node *corev1.Node, kind string) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return string(c.Type) == kind })
}

// removeObjects deletes NodeVirtualizations. A cluster without the kind has none.
func (a *api) removeObjects(ctx context.Context, name string, tell func(string)) error {
	var failures []error
	for next := ""; ; {
		var list v1alpha1.NodeVirtualizationList
		err := a.page(ctx, objects, name, next, &list)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return errors.Join(append(failures, fmt.Errorf("list NodeVirtualizations: %w", err))...)
		}
		for i := range list.Items {
			item := list.Items[i].Name
			err := a.own.Delete().Resource(objects).Name(item).Do(ctx).Error()
			switch {
			case err == nil:
				tell("nodevirtualization " + item)
			case !apierrors.IsNotFound(err):
				failures = append(failures, fmt.Errorf("delete NodeVirtualization %s: %w", item, err))
			}
		}
		if next = list.Continue; next == "" {
			return errors.Join(failures...)
		}
	}
}

// freePolicies takes the agent's finalizer, and no other, off HostNetworks: one
// that is deleted, or whose kind is, would never go otherwise.
func (a *api) freePolicies(ctx context.Context, tell func(string)) error {
	var failures []error
	for next := ""; ; {
		var list v1alpha1.HostNetworkList
		err := a.page(ctx, policies, "", next, &list)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return errors.Join(append(failures, fmt.Errorf("list HostNetworks: %w", err))...)
		}
		for i := range list.Items {
			switch freed, err := a.freePolicy(ctx, &list.Items[i]); {
			case err != nil:
				failures = append(failures, fmt.Errorf("free HostNetwork %s: %w", list.Items[i].Name, err))
			case freed:
				tell(fmt.Sprintf("hostnetwork %s: finalizer %s", list.Items[i].Name, v1alpha1.RestoreFinalizer))
			}
		}
		if next = list.Continue; next == "" {
			return errors.Join(failures...)
		}
	}
}

// freePolicy removes the finalizer from its place, if it still is there.
func (a *api) freePolicy(ctx context.Context, policy *v1alpha1.HostNetwork) (freed bool, err error) {
	at := slices.Index(policy.Finalizers, v1alpha1.RestoreFinalizer)
	if at < 0 {
		return false, nil
	}
	path := fmt.Sprintf("/metadata/finalizers/%d", at)
	body, err := json.Marshal([]map[string]string{
		{"op": "test", "path": path, "value": v1alpha1.RestoreFinalizer},
		{"op": "remove", "path": path},
	})
	if err != nil {
		return false, err
	}
	err = a.own.Patch(types.JSONPatchType).Resource(policies).Name(policy.Name).Body(body).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil // it has gone meanwhile
	}
	return err == nil, err
}
