package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/multus"
)

// What the controller makes is known by this label, and nothing else is touched.
const (
	managedBy    = "app.kubernetes.io/managed-by"
	fieldManager = "nodeagent-controller"
	reasonFailed = "Failed"
)

var definitions = schema.GroupVersionKind{Group: "k8s.cni.cncf.io", Version: "v1", Kind: "NetworkAttachmentDefinition"}

// rendered is one definition, and whose it is.
type rendered struct {
	policy *v1alpha1.HostNetwork
	object *unstructured.Unstructured
}

func key(object client.Object) string { return object.GetNamespace() + "/" + object.GetName() }

// render returns the definitions of all policies by their names, and what is
// wrong, by policy. Of two policies with one name for an attachment, the first
// has it.
func render(policies []*v1alpha1.HostNetwork) (map[string]rendered, map[string]error) {
	all, bad := make(map[string]rendered), make(map[string]error)
	for _, policy := range policies {
		objects, err := multus.Attachments([]v1alpha1.HostNetwork{*policy})
		if err != nil {
			bad[policy.Name] = err
			continue
		}
		for _, object := range objects {
			definition := definitionOf(policy, object)
			if other, taken := all[key(definition)]; taken {
				bad[policy.Name] = errors.Join(bad[policy.Name], fmt.Errorf("%s is of the HostNetwork %s already", key(definition), other.policy.Name))
				continue
			}
			all[key(definition)] = rendered{policy, definition}
		}
	}
	return all, bad
}

func definitionOf(policy *v1alpha1.HostNetwork, from multus.Object) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"config": from.Spec.Config}}}
	object.SetGroupVersionKind(definitions)
	object.SetName(from.Metadata.Name)
	object.SetNamespace(from.Metadata.Namespace)
	object.SetAnnotations(from.Metadata.Annotations)
	object.SetLabels(map[string]string{managedBy: fieldManager})
	object.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(policy, schema.FromAPIVersionAndKind(v1alpha1.APIVersion, v1alpha1.KindHostNetwork))})
	return object
}

// offer makes the definitions of policies, and removes those of ours that none
// of them has. It returns the condition of each policy that has attachments.
func offer(ctx context.Context, c client.Client, policies []*v1alpha1.HostNetwork) (map[string]*metav1.Condition, error) {
	wanted, bad := render(policies)
	existing := &unstructured.UnstructuredList{}
	existing.SetGroupVersionKind(definitions.GroupVersion().WithKind(definitions.Kind + "List"))
	err := c.List(ctx, existing, client.MatchingLabels{managedBy: fieldManager})
	absent := meta.IsNoMatchError(err) || apierrors.IsNotFound(err)
	switch {
	case absent:
		for _, r := range wanted {
			bad[r.policy.Name] = errors.New("the cluster knows no NetworkAttachmentDefinitions: install Multus")
		}
		wanted = nil
	case err != nil:
		return nil, fmt.Errorf("list NetworkAttachmentDefinitions: %w", err)
	}
	have := make(map[string]*unstructured.Unstructured)
	for i := range existing.Items {
		have[key(&existing.Items[i])] = &existing.Items[i]
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		r := wanted[name]
		if err := put(ctx, c, r.object, have[name]); err != nil {
			bad[r.policy.Name] = errors.Join(bad[r.policy.Name], err)
		}
		delete(have, name)
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(have)) {
		uid := have[name].GetUID()
		if err := c.Delete(ctx, have[name], client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("remove NetworkAttachmentDefinition %s: %w", name, err))
		}
	}
	return conditionsOf(policies, bad), errors.Join(errs...)
}

// offered is what was offered last.
type offered struct {
	policies   string // as they were
	at         time.Time
	conditions map[string]*metav1.Condition
}

// offer looks at the definitions when the policies have changed, something is
// missing, or a while has passed: nobody watches them, and to list them each
// time that a node reports would be the most that is asked of the API server.
func (w *whole) offer(ctx context.Context, policies []*v1alpha1.HostNetwork) (map[string]*metav1.Condition, error) {
	var text strings.Builder
	for _, policy := range policies {
		fmt.Fprintln(&text, policy.UID, policy.Generation)
	}
	last := &w.offered
	if text.String() == last.policies && w.now().Sub(last.at) < lookAgain(last.conditions) {
		return last.conditions, nil
	}
	conditions, err := offer(ctx, w.client, policies)
	*last = offered{}
	if err == nil {
		*last = offered{text.String(), w.now(), conditions}
	}
	return conditions, err
}

// lookAgain is how long attachments may be left alone.
func lookAgain(conditions map[string]*metav1.Condition) time.Duration {
	for _, condition := range conditions {
		if condition.Status != metav1.ConditionTrue {
			return retry
		}
	}
	return resync
}

// put makes a definition as it shall be. have is the one of ours that exists.
func put(ctx context.Context, c client.Client, want, have *unstructured.Unstructured) error {
	if have == nil {
		other := &unstructured.Unstructured{}
		other.SetGroupVersionKind(definitions)
		switch err := c.Get(ctx, client.ObjectKeyFromObject(want), other); {
		case err == nil:
			return fmt.Errorf("%s is there already, and not ours: choose another name, or remove it", key(want))
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("look for NetworkAttachmentDefinition %s: %w", key(want), err)
		}
	} else if same(want, have) {
		return nil
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply NetworkAttachmentDefinition %s: %w", key(want), err)
	}
	return nil
}

// same reports whether all that we say of a definition is so.
func same(want, have *unstructured.Unstructured) bool {
	for name, value := range want.GetAnnotations() {
		if have.GetAnnotations()[name] != value {
			return false
		}
	}
	return equality.Semantic.DeepEqual(want.Object["spec"], have.Object["spec"]) && equality.Semantic.DeepEqual(want.GetOwnerReferences(), have.GetOwnerReferences())
}

func conditionsOf(policies []*v1alpha1.HostNetwork, bad map[string]error) map[string]*metav1.Condition {
	all := make(map[string]*metav1.Condition)
	for _, policy := range policies {
		if len(policy.Spec.Attachments) == 0 {
			continue
		}
		if err := bad[policy.Name]; err != nil {
			failed := condition(metav1.ConditionFalse, reasonFailed, "not all of them are there", strings.Split(err.Error(), "\n"))
			all[policy.Name] = &failed
			continue
		}
		message := fmt.Sprintf("%d NetworkAttachmentDefinitions are there", len(policy.Spec.Attachments))
		all[policy.Name] = &metav1.Condition{Status: metav1.ConditionTrue, Reason: "Rendered", Message: message}
	}
	return all
}
