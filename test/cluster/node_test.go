package cluster_test

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/virtnode/nodeagent/test/cluster"
)

// plane is shared by the tests that need an API server; TestMain ends it.
var plane cluster.Shared

func TestMain(m *testing.M) { os.Exit(plane.Run(m)) }

func newClient(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(plane.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestServerIsTheBuiltVersion(t *testing.T) {
	server, err := newClient(t).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	want, err := cluster.Version()
	if err != nil {
		t.Fatal(err)
	}
	if server.GitVersion != want {
		t.Errorf("the server is %s, want %s", server.GitVersion, want)
	}
}

// newNode makes a node with a label of somebody else's.
func newNode(t *testing.T, name string) typedcorev1.NodeInterface {
	t.Helper()
	nodes := newClient(t).CoreV1().Nodes()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"example.org/rack": "7"}}}
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// What the agent relies on: an apply owns the keys it names, drops the own
// ones it no longer names, and leaves the others alone.
func TestNodeLabelsByServerSideApply(t *testing.T) {
	const name = "labelled"
	nodes := newNode(t, name)
	apply := func(manager string, labels map[string]string) error {
		_, err := nodes.Apply(t.Context(), applycorev1.Node(name).WithLabels(labels), metav1.ApplyOptions{FieldManager: manager})
		return err
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		node, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			got, found := node.Labels[key]
			if got != value || found != (value != "") {
				t.Errorf("%s, label %s is %q, want %q", when, key, got, value)
			}
		}
	}

	if err := apply("nodeagent", map[string]string{"virtnode.io/kvm": "true", "virtnode.io/nested": "true"}); err != nil {
		t.Fatal(err)
	}
	check("after the first apply", map[string]string{
		"virtnode.io/kvm": "true", "virtnode.io/nested": "true", "example.org/rack": "7",
	})
	if err := apply("nodeagent", map[string]string{"virtnode.io/kvm": "true"}); err != nil {
		t.Fatal(err)
	}
	check("after the second apply", map[string]string{
		"virtnode.io/kvm": "true", "virtnode.io/nested": "", "example.org/rack": "7",
	})
	if err := apply("somebody", map[string]string{"virtnode.io/kvm": "false"}); !apierrors.IsConflict(err) {
		t.Errorf("somebody else's apply to our key: got error %v, want a conflict", err)
	}
	check("after the conflict", map[string]string{"virtnode.io/kvm": "true"})
}

func TestNodeConditionThroughStatus(t *testing.T) {
	const name = "conditioned"
	nodes := newNode(t, name)
	now := metav1.Now()
	condition := applycorev1.NodeCondition().
		WithType("VirtualizationReady").
		WithStatus(corev1.ConditionFalse).
		WithReason("DisabledInFirmware").
		WithMessage("SVM is off").
		WithLastHeartbeatTime(now).
		WithLastTransitionTime(now)
	node := applycorev1.Node(name).WithStatus(applycorev1.NodeStatus().WithConditions(condition))
	options := metav1.ApplyOptions{FieldManager: "nodeagent"}

	// The resource itself takes no status.
	if _, err := nodes.Apply(t.Context(), node, options); err != nil {
		t.Fatal(err)
	}
	if found := conditionsOf(t, nodes, name); len(found) != 0 {
		t.Errorf("an apply to the node wrote its status: %v", found)
	}
	if _, err := nodes.ApplyStatus(t.Context(), node, options); err != nil {
		t.Fatal(err)
	}
	found := conditionsOf(t, nodes, name)
	if len(found) != 1 || found[0].Type != "VirtualizationReady" ||
		found[0].Status != corev1.ConditionFalse || found[0].Reason != "DisabledInFirmware" {
		t.Errorf("got conditions %v, want one VirtualizationReady, False, DisabledInFirmware", found)
	}
}

func conditionsOf(t *testing.T, nodes typedcorev1.NodeInterface, name string) []corev1.NodeCondition {
	t.Helper()
	node, err := nodes.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node.Status.Conditions
}
