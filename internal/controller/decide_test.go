package controller

import (
	"fmt"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// BenchmarkDecide is all that is decided for 5,000 nodes and 30 policies.
func BenchmarkDecide(b *testing.B) {
	f := newFleet(nil, nil)
	var policies []*v1alpha1.HostNetwork
	for p := range 30 {
		policies = append(policies, policyOf(fmt.Sprintf("p%02d", p), 1))
		policies[p].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": strconv.Itoa(p % 20)}}
		if p < 10 {
			policies[p].Spec.NodeSelector = nil
		}
	}
	for i := range 5000 {
		node := fmt.Sprintf("n%04d", i)
		f.names = append(f.names, node)
		f.labels[node] = map[string]string{"rack": strconv.Itoa(i % 20), "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
		f.reports[node] = make(map[string]v1alpha1.NetworkReport)
		for p := range 10 {
			name := fmt.Sprintf("p%02d", p)
			f.reports[node][name] = v1alpha1.NetworkReport{Policy: name, ObservedGeneration: 2, State: v1alpha1.NetworkConverged}
		}
	}
	for b.Loop() {
		turns := turnsOf(policies, f)
		for _, policy := range policies {
			statusOf(policy, f, turns[policy.Name], nil, metav1.Now())
		}
	}
}
