package cluster_test

import (
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// The machines that the agents of these tests find: one with all that VMs
// need, and the same one without its KVM module.
func machines(t *testing.T) (good, bad kvmcheck.Report) {
	t.Helper()
	of := func(name string) kvmcheck.Report {
		facts := hosttest.Replay(t, filepath.Join(hosttest.Root(), "test", "hosts", name+".tar.gz"))
		return kvmcheck.NewReport(facts, kvmcheck.Profile{}, "v1.2.3", hosttest.Time())
	}
	return of("vm-kvm"), of("vm-no-module")
}

// published is what the API server has of a node.
type published struct {
	t       *testing.T
	clients *kubernetes.Clientset
	objects client.Client
	name    string
}

// newPublished makes a Node, and returns it with the connection of its agent.
func newPublished(t *testing.T, config *rest.Config, name string) (*published, *rest.Config) {
	t.Helper()
	clients := kubernetes.NewForConfigOrDie(config)
	makeNode(t, clients, name)
	return &published{t, clients, newObjects(t, config), name}, as(config, agentToken(t, clients, name))
}

func (p *published) node() *corev1.Node {
	p.t.Helper()
	found, err := p.clients.CoreV1().Nodes().Get(p.t.Context(), p.name, metav1.GetOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// ours lists the labels with our prefix.
func (p *published) ours() map[string]string {
	p.t.Helper()
	labels := p.node().Labels
	maps.DeleteFunc(labels, func(key, _ string) bool { return !strings.HasPrefix(key, node.Prefix) })
	return labels
}

func (p *published) condition() corev1.NodeCondition {
	p.t.Helper()
	conditions := p.node().Status.Conditions
	at := slices.IndexFunc(conditions, func(c corev1.NodeCondition) bool { return c.Type == node.VirtualizationReady })
	if at < 0 {
		return corev1.NodeCondition{}
	}
	return conditions[at]
}

func (p *published) object() v1alpha1.NodeVirtualization {
	p.t.Helper()
	var object v1alpha1.NodeVirtualization
	if err := p.objects.Get(p.t.Context(), client.ObjectKey{Name: p.name}, &object); err != nil {
		p.t.Fatal(err)
	}
	return object
}

// events counts the events about the node by reason.
func (p *published) events() map[string]int {
	p.t.Helper()
	list, err := p.clients.CoreV1().Events("default").List(p.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + p.name})
	if err != nil {
		p.t.Fatal(err)
	}
	counts := make(map[string]int)
	for i := range list.Items {
		counts[list.Items[i].Type+" "+list.Items[i].Reason]++
	}
	return counts
}

// edit changes a label of the node as a person does.
func (p *published) edit(patch string) {
	p.t.Helper()
	if _, err := p.clients.CoreV1().Nodes().Patch(p.t.Context(), p.name, mergePatch, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-label"}); err != nil {
		p.t.Fatal(err)
	}
}

// TestLifeOfALabel goes from the first look to a machine that has lost its
// KVM, and back, with the token and the rights that an agent has.
func TestLifeOfALabel(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "life")
	good, bad := machines(t)
	agent := newAgent(t, way, p.name)
	agent.look(t, 0, good)
	agent.settled(t)

	labels := p.ours()
	if labels["virtnode.io/kvm"] != "true" || labels["virtnode.io/cpu.vendor"] != "AuthenticAMD" || p.node().Labels["example.org/rack"] != "7" {
		t.Errorf("labels %v", labels)
	}
	if c := p.condition(); c.Status != corev1.ConditionTrue || !c.LastTransitionTime.Equal(&metav1.Time{Time: hosttest.Time()}) {
		t.Errorf("condition %+v", c)
	}
	object := p.object()
	status := object.Status
	if status.Verdict != "Ready" || status.Agent != "v1.2.3" || len(status.Findings) < 20 || len(status.Conditions) != 1 || status.FactsDigest == "" {
		t.Errorf("NodeVirtualization %+v", status)
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: p.name, UID: p.node().UID}
	if diff := cmp.Diff([]metav1.OwnerReference{owner}, object.OwnerReferences); diff != "" {
		t.Error(diff)
	}

	for range 3 {
		agent.look(t, 31*time.Second, bad)
	}
	within(t, "the label says no", func() bool { return p.ours()["virtnode.io/kvm"] == "false" })
	if _, nested := p.ours()["virtnode.io/kvm.nested"]; nested {
		t.Error("nested stays")
	}
	within(t, "the condition says why", func() bool { return p.condition().Reason == "ModuleNotLoaded" })
	within(t, "the object says why", func() bool { return strings.HasPrefix(p.object().Status.Reasons, "ModuleNotLoaded") })
	agent.look(t, time.Second, good)
	within(t, "all is as before", func() bool { return cmp.Equal(labels, p.ours()) && p.condition().Status == corev1.ConditionTrue })
	reports := []v1alpha1.NetworkReport{{Policy: "storage", State: v1alpha1.NetworkConverged, Interfaces: []v1alpha1.InterfaceReport{{Name: "stor0", Ready: true}}}}
	agent.ObserveNetworks(reports, true)
	within(t, "networks are published", func() bool {
		return p.ours()["virtnode.io/network.stor0"] == "true" && cmp.Equal(reports, p.object().Status.Networks) && len(p.object().Status.Conditions) == 2
	})
	// Who gives all its conditions up leaves those of the kubelet.
	agent.ObserveNetworks(nil, false)
	for range 3 {
		agent.look(t, 31*time.Second, good)
	}
	within(t, "the networks' condition goes", func() bool { return len(p.node().Status.Conditions) == 2 && len(p.object().Status.Networks) == 0 })
	within(t, "events tell of both", func() bool {
		return cmp.Equal(map[string]int{"Warning ModuleNotLoaded": 1, "Normal VirtualizationReady": 1}, p.events())
	})
	if conflicts := agent.State().Conflicts; conflicts != 0 {
		t.Errorf("%d conflicts", conflicts)
	}
}

// TestNothingIsWrittenAtRest has ten minutes of an agent's time without a
// change, and ten with a probe that flaps.
func TestNothingIsWrittenAtRest(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "rest")
	good, bad := machines(t)
	agent := newAgent(t, way, p.name)
	agent.look(t, 0, good)
	agent.settled(t)
	agent.look(t, time.Minute, good) // what was under way has ended
	writes, requests, version := agent.wire.writes(), agent.wire.count(http.MethodGet), p.node().ResourceVersion
	if writes != 4 || requests > 4 {
		t.Errorf("the start took %d writes and %d reads: %v", writes, requests, agent.wire.requests)
	}
	for range 10 {
		agent.look(t, time.Minute, good)
	}
	for i := range 60 {
		look := good
		if i%3 != 2 {
			look = bad
		}
		agent.look(t, 10*time.Second, look)
	}
	if agent.wire.writes() != writes || agent.wire.count(http.MethodGet) != requests {
		t.Errorf("%d writes and %d reads at rest: %v", agent.wire.writes()-writes, agent.wire.count(http.MethodGet)-requests, agent.wire.requests)
	}
	if now := p.node().ResourceVersion; now != version {
		t.Errorf("the Node went from version %s to %s", version, now)
	}
}

// TestWhatOthersDoToLabels takes one away, changes one, and leaves ones that
// are not the agent's.
func TestWhatOthersDoToLabels(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "others")
	good, bad := machines(t)
	// An agent of before has left a label that nobody writes any more, and
	// somebody has one with our prefix.
	apply := func(manager, key string) {
		labels := applycorev1.Node(p.name).WithLabels(map[string]string{key: "true"})
		if _, err := p.clients.CoreV1().Nodes().Apply(t.Context(), labels, metav1.ApplyOptions{FieldManager: manager}); err != nil {
			t.Fatal(err)
		}
	}
	apply(node.Manager, "virtnode.io/of-an-older-version")
	apply("somebody", "virtnode.io/of-somebody")
	agent := newAgent(t, way, p.name)
	agent.look(t, 0, good)
	agent.settled(t)
	if p.ours()["virtnode.io/of-an-older-version"] != "true" {
		t.Error("what an older version has written goes at once")
	}
	for range 3 {
		agent.look(t, 31*time.Second, good)
	}
	within(t, "it goes", func() bool { _, there := p.ours()["virtnode.io/of-an-older-version"]; return !there })
	if p.ours()["virtnode.io/of-somebody"] != "true" {
		t.Error("somebody's label went, too")
	}

	p.edit(`{"metadata":{"labels":{"virtnode.io/kvm":null}}}`)
	within(t, "a dropped label is back", func() bool { return p.ours()["virtnode.io/kvm"] == "true" })

	p.edit(`{"metadata":{"labels":{"virtnode.io/kvm":"false"}}}`)
	within(t, "a changed label is a conflict", func() bool { return agent.State().InConflict == 1 })
	within(t, "an event tells of it", func() bool { return p.events()["Warning FieldConflict"] == 1 })
	// The others go on, and nobody fights.
	for range 3 {
		agent.look(t, 31*time.Second, bad)
	}
	within(t, "the other labels go on", func() bool { _, there := p.ours()["virtnode.io/kvm.nested"]; return !there })
	agent.look(t, time.Second, good)
	within(t, "the other labels come back", func() bool { return p.ours()["virtnode.io/kvm.nested"] == "true" })
	if value := p.ours()["virtnode.io/kvm"]; value != "false" {
		t.Errorf("the label that is somebody else's became %q", value)
	}
	for range 3 {
		agent.look(t, time.Minute, good) // what only the other machine had goes slowly
	}
	writes := agent.wire.writes()
	for range 5 {
		agent.look(t, time.Minute, good)
	}
	if more := agent.wire.writes() - writes; more != 0 {
		t.Errorf("%d writes against somebody else", more)
	}
	p.edit(`{"metadata":{"labels":{"virtnode.io/kvm":null}}}`)
	within(t, "it is taken back when they let it go", func() bool { return p.ours()["virtnode.io/kvm"] == "true" && agent.State().InConflict == 0 })
	if state := agent.State(); state.Errors["Conflict"] != 0 {
		t.Errorf("%d conflicts came as a surprise", state.Errors["Conflict"])
	}
}

// TestANewAgentGoesOnWhereTheOldOneWas restarts an agent whose probe fails at
// first.
func TestANewAgentGoesOnWhereTheOldOneWas(t *testing.T) {
	p, way := newPublished(t, withAgents(t), "restart")
	good, bad := machines(t)
	first := newAgent(t, way, p.name)
	first.look(t, 0, good)
	first.settled(t)
	labels, condition := p.ours(), p.condition()
	second := newAgent(t, way, p.name)
	second.look(t, 0, bad)
	second.look(t, time.Second, bad)
	second.look(t, time.Second, good)
	if writes := second.wire.writes(); writes != 0 {
		t.Errorf("%d writes", writes)
	}
	if diff := cmp.Diff(labels, p.ours()) + cmp.Diff(condition, p.condition()); diff != "" {
		t.Error(diff)
	}
}
