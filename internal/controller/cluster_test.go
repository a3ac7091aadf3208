package controller_test

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/hostnet"
)

const jumbo = "{nodeSelector: {matchLabels: {rack: a}}, probes: {targets: []}, interfaces: [{name: storage, match: {pciAddress: '0000:01:00.0'}, mtu: 9000}]}"

// gone waits until there is no such policy.
func (b *bed) gone(name string) {
	b.t.Helper()
	b.eventually(name+" is gone", func() (bool, string) {
		policy, err := b.policy(name)
		return apierrors.IsNotFound(err), string(mustJSON(policy))
	})
}

func (b *bed) remove(name string) {
	b.t.Helper()
	if err := b.Delete(b.t.Context(), &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		b.t.Fatal(err)
	}
}

// The life of a policy: it selects by label, its plan waits for approval and
// for its turn, is applied and reported, is taken back with the label, and
// restores before it goes.
func TestLifeOfAPolicy(t *testing.T) {
	b := withKinds(t)
	one, other := b.node("life-1", map[string]string{"rack": "a"}).start(), b.node("life-2", map[string]string{"rack": "b"}).start()
	b.apply("life", jumbo)

	report := one.reports("life", v1alpha1.NetworkAwaitingApproval)
	if one.mtu() != 1500 || report.PlanHash == "" || !slices.ContainsFunc(report.Steps, func(s string) bool { return strings.HasPrefix(s, "set MTU of nic0 from 1500 to 9000") }) {
		t.Fatalf("MTU %d, %+v", one.mtu(), report)
	}
	policy := b.ready("life", v1alpha1.NetworkAwaitingApproval)
	if want := (v1alpha1.NodeCounts{Selected: 1, Waiting: 1}); policy.Status.Nodes != want || !slices.Contains(policy.Finalizers, v1alpha1.RestoreFinalizer) {
		t.Errorf("%+v", policy)
	}

	b.change("life", func(s *v1alpha1.HostNetworkSpec) { s.ApprovedPlans = []string{report.PlanHash} })
	report = one.reports("life", v1alpha1.NetworkConverged)
	if one.mtu() != 9000 || len(report.Interfaces) != 1 || !report.Interfaces[0].Ready || report.Interfaces[0].Link != "nic0" {
		t.Errorf("MTU %d, %+v", one.mtu(), report)
	}
	if policy = b.ready("life", v1alpha1.NetworkConverged); policy.Status.Nodes.Converged != 1 || len(policy.Status.Turns) != 0 {
		t.Errorf("%+v", policy.Status)
	}

	one.label(nil)
	one.has(1500)
	one.reports("life", "")
	b.ready("life", "NoNodes")
	one.label("a")
	one.has(9000)
	b.ready("life", v1alpha1.NetworkConverged)

	if err := one.kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetMTU, Link: "nic0", Number: 4000}); err != nil {
		t.Fatal(err)
	}
	one.reports("life", v1alpha1.NetworkDrifted)
	b.ready("life", v1alpha1.NetworkDrifted)
	if err := one.kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetMTU, Link: "nic0", Number: 9000}); err != nil {
		t.Fatal(err)
	}
	b.ready("life", v1alpha1.NetworkConverged)

	// While the agent is away, the policy stays.
	one.stop()
	b.remove("life")
	b.ready("life", "Restoring")
	if one.mtu() != 9000 {
		t.Errorf("MTU %d without an agent", one.mtu())
	}
	one.start()
	b.gone("life")
	if one.mtu() != 1500 || other.mtu() != 1500 {
		t.Errorf("MTU %d and %d when the policy is gone", one.mtu(), other.mtu())
	}
	one.reports("life", "")
}

func TestDisruptionGoesFromNodeToNode(t *testing.T) {
	b := withKinds(t)
	var mu sync.Mutex
	var order []string
	var nodes []*fakeNode
	for _, name := range []string{"roll-1", "roll-2", "roll-3"} {
		n := b.node(name, map[string]string{"rack": "roll"})
		n.kernel.before = func(op hostnet.Op) {
			if op.Do != hostnet.SetMTU {
				return
			}
			// At this moment nobody else may be disrupted.
			policy, err := b.policy("roll")
			if turn, has := policy.TurnOf(name); err != nil || !has || len(policy.Status.Turns) != 1 || turn.Generation != policy.Generation {
				t.Errorf("%s writes without its turn: %+v, %v", name, policy.Status.Turns, err)
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}
		nodes = append(nodes, n.start())
	}
	b.apply("roll", strings.Replace(jumbo, "{nodeSelector: {matchLabels: {rack: a}}", "{disruption: Allow, nodeSelector: {matchLabels: {rack: roll}}", 1))
	policy := b.ready("roll", v1alpha1.NetworkConverged)
	mu.Lock()
	if want := (v1alpha1.NodeCounts{Selected: 3, Converged: 3}); policy.Status.Nodes != want || len(policy.Status.Turns) != 0 || len(order) != 3 {
		t.Errorf("%v, %+v", order, policy.Status)
	}
	mu.Unlock()

	// A change that is undone on the first node goes no further.
	for _, n := range nodes {
		n.kernel.before = nil
	}
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = target.Close() }()
	nodes[0].stop()
	nodes[0].kernel.before = func(op hostnet.Op) {
		if op.Do == hostnet.SetMTU {
			_ = target.Close() // what shall answer does not any more
		}
	}
	nodes[0].start()
	b.change("roll", func(s *v1alpha1.HostNetworkSpec) {
		s.Interfaces[0].MTU = 8000
		s.Probes = v1alpha1.Probes{Timeout: "1s", Targets: []string{"tcp://" + target.Addr().String()}}
	})
	nodes[0].reports("roll", v1alpha1.NetworkRolledBack)
	nodes[1].reports("roll", v1alpha1.NetworkAwaitingTurn)
	nodes[2].reports("roll", v1alpha1.NetworkAwaitingTurn)
	policy = b.ready("roll", v1alpha1.NetworkRolledBack)
	if len(policy.Status.Turns) != 1 || policy.Status.Turns[0].Node != "roll-1" {
		t.Errorf("%+v", policy.Status)
	}
	for _, n := range nodes {
		if n.mtu() != 9000 {
			t.Errorf("%s: MTU %d", n.name, n.mtu())
		}
	}
	// Corrected, it goes on; a node that vanishes does not hold the policy.
	b.change("roll", func(s *v1alpha1.HostNetworkSpec) {
		s.Interfaces[0].MTU = 7000
		s.Probes.Targets = []string{}
	})
	b.ready("roll", v1alpha1.NetworkConverged)
	nodes[2].stop()
	b.remove("roll")
	nodes[0].has(1500)
	nodes[1].has(1500)
	b.ready("roll", "Restoring")
	if err := b.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "roll-3"}}); err != nil {
		t.Fatal(err)
	}
	b.gone("roll")
	b.eventually("what the vanished node has left is removed", func() (bool, string) {
		err := b.Get(t.Context(), client.ObjectKey{Name: "roll-3"}, &v1alpha1.NodeVirtualization{})
		return apierrors.IsNotFound(err), ""
	})
}

// Whoever has the controller's token can give turns, and allow nothing.
func TestControllerAllowsNothing(t *testing.T) {
	b := withKinds(t)
	b.apply("theft", jumbo)
	b.ready("theft", "NoNodes")
	thief := newBed(t, b.account("nodeagent-controller", "../../deploy/daemonset/base/rbac-controller.yaml"))
	for name, patch := range map[string]map[string]any{
		"disruption":    {"spec": map[string]any{"disruption": "Allow"}},
		"approvedPlans": {"spec": map[string]any{"approvedPlans": []string{"4be7a91c02de"}}},
		"nodeSelector":  {"spec": map[string]any{"nodeSelector": nil}},
		"a label":       {"metadata": map[string]any{"labels": map[string]any{"a": "b"}}},
	} {
		// The policy of an admission is in force a moment after it was made.
		b.eventually(name+" is refused", func() (bool, string) {
			err := thief.Patch(t.Context(), &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: "theft"}}, mustPatch(patch), client.DryRunAll)
			return apierrors.IsForbidden(err), "taken"
		})
	}
	for what, err := range map[string]error{
		"make a policy": thief.Create(t.Context(), &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: "own"}}),
		"label a node":  thief.Patch(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "any"}}, mustPatch(map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}})),
		"read secrets":  thief.List(t.Context(), &corev1.SecretList{}),
		"read pods":     thief.List(t.Context(), &corev1.PodList{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
