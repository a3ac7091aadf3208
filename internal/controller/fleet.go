package controller

import (
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// fleet is what is known of all nodes.
type fleet struct {
	names   []string                                     // of the nodes, in order
	labels  map[string]map[string]string                 // by node
	reports map[string]map[string]v1alpha1.NetworkReport // by node and policy
}

// newFleet joins the nodes that exist with what their agents report.
func newFleet(nodes []metav1.PartialObjectMetadata, objects []v1alpha1.NodeVirtualization) fleet {
	f := fleet{labels: make(map[string]map[string]string), reports: make(map[string]map[string]v1alpha1.NetworkReport)}
	for i := range nodes {
		f.labels[nodes[i].Name] = nodes[i].Labels
	}
	f.names = slices.Sorted(maps.Keys(f.labels))
	for i := range objects {
		name := objects[i].Name
		if _, exists := f.labels[name]; !exists {
			continue
		}
		f.reports[name] = make(map[string]v1alpha1.NetworkReport)
		for _, report := range objects[i].Status.Networks {
			f.reports[name][report.Policy] = report
		}
	}
	return f
}

// selected lists the nodes that a policy is for, in order.
func (f fleet) selected(policy *v1alpha1.HostNetwork) []string {
	selector, err := policy.Selector()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.names), func(name string) bool { return !selector.Matches(labels.Set(f.labels[name])) })
}

// report returns what a node says of a policy as it is now.
func (f fleet) report(node string, policy *v1alpha1.HostNetwork) (v1alpha1.NetworkReport, bool) {
	report, found := f.reports[node][policy.Name]
	return report, found && report.ObservedGeneration == policy.Generation
}

// unrestored lists the nodes that still have something of a policy, and why. A
// node that has vanished has nothing. What one said before the deletion is no
// answer to it: whether an agent will come back to give one, a person knows.
func (f fleet) unrestored(policy *v1alpha1.HostNetwork) []string {
	var nodes []string
	for _, node := range f.names {
		report, has := f.reports[node][policy.Name]
		switch {
		case !has:
		case report.ObservedGeneration != policy.Generation:
			nodes = append(nodes, fmt.Sprintf("%s: has not answered (if its agent will not come back: nodeagent uninstall --node %s)", node, node))
		case report.State != v1alpha1.NetworkRestored:
			nodes = append(nodes, fmt.Sprintf("%s: %s: %s", node, report.State, report.Message))
		}
	}
	return nodes
}
