package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Selector is what selects the nodes that a policy is for, by their labels.
func (h *HostNetwork) Selector() (labels.Selector, error) {
	if h.Spec.NodeSelector == nil {
		return labels.Everything(), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(h.Spec.NodeSelector)
	if err != nil {
		return nil, fmt.Errorf("nodeSelector of %s: %w", h.Name, err)
	}
	return selector, nil
}

// Selects reports whether a policy is for a node with these labels.
func (h *HostNetwork) Selects(node map[string]string) (bool, error) {
	selector, err := h.Selector()
	return err == nil && selector.Matches(labels.Set(node)), err
}
