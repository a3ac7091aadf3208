package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Selects reports whether a policy is for a node with these labels.
func (h *HostNetwork) Selects(node map[string]string) (bool, error) {
	if h.Spec.NodeSelector == nil {
		return true, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(h.Spec.NodeSelector)
	if err != nil {
		return false, fmt.Errorf("nodeSelector of %s: %w", h.Name, err)
	}
	return selector.Matches(labels.Set(node)), nil
}
