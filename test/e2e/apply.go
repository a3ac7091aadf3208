package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// resource finds where an object of that kind goes, once its kind is served.
func (c *Cluster) resource(object unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	client, err := dynamic.NewForConfig(c.Config)
	if err != nil {
		return nil, err
	}
	kind := object.GroupVersionKind()
	mapping, err := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.Client.Discovery())).RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return client.Resource(mapping.Resource).Namespace(object.GetNamespace()), nil
	}
	return client.Resource(mapping.Resource), nil
}

// Apply applies the objects in their order, as kubectl does.
func (c *Cluster) Apply(ctx context.Context, objects ...unstructured.Unstructured) error {
	for _, object := range objects {
		what := object.GetKind() + " " + object.GetName()
		var last error
		err := hosttest.Poll(ctx, what, func() (bool, error) {
			resource, err := c.resource(object)
			if err == nil {
				_, err = resource.Apply(ctx, object.GetName(), &object, metav1.ApplyOptions{FieldManager: "e2e", Force: true})
			}
			// A new kind, or a new namespace's default account, takes a moment.
			last = err
			return err == nil, nil
		})
		if err != nil {
			return errors.Join(err, last)
		}
	}
	return nil
}

// Delete deletes the objects in reverse order and waits until they are gone.
func (c *Cluster) Delete(ctx context.Context, objects ...unstructured.Unstructured) error {
	for _, object := range slices.Backward(objects) {
		resource, err := c.resource(object)
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		foreground := metav1.DeletePropagationForeground
		err = resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		err = hosttest.Poll(ctx, "the end of "+object.GetKind()+" "+object.GetName(), func() (bool, error) {
			_, err := resource.Get(ctx, object.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
