package controller_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/node"
)

// holds waits until a deleted policy waits for these nodes and no others, and
// returns why it does.
func (b *bed) holds(name string, nodes ...string) string {
	b.t.Helper()
	var message string
	b.eventually(name+" waits for "+strings.Join(nodes, " and "), func() (bool, string) {
		policy, err := b.policy(name)
		if err != nil {
			return false, err.Error()
		}
		ready := meta.FindStatusCondition(policy.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != "Restoring" || !slices.Contains(policy.Finalizers, v1alpha1.RestoreFinalizer) {
			return false, string(mustJSON(policy.Status))
		}
		message = ready.Message
		var named []string
		for _, line := range strings.Split(message, "; ")[1:] {
			who, _, _ := strings.Cut(line, ": ")
			named = append(named, who)
		}
		return slices.Equal(named, nodes), message
	})
	return message
}

// A deleted policy waits for the node whose agent is gone, names it, and says
// how to let it go. Nobody else is restored any less for that: the agents that
// are there, and this one, should it come back after all.
func TestANodeWithoutAgentIsLetGo(t *testing.T) {
	b := withKinds(t)
	here, away, vanished, empty := b.node("letgo-here", map[string]string{"rack": "letgo"}).start(), b.node("letgo-away", map[string]string{"rack": "letgo"}).start(),
		b.node("letgo-gone", map[string]string{"rack": "letgo"}).start(), b.node("letgo-mute", map[string]string{"rack": "letgo"})
	spec := strings.Replace(jumbo, "{nodeSelector: {matchLabels: {rack: a}}", "{disruption: Allow, maxUnavailable: 3, nodeSelector: {matchLabels: {rack: letgo}}", 1)
	b.apply("letgo", spec)
	for _, n := range []*fakeNode{here, away, vanished} {
		n.reports("letgo", v1alpha1.NetworkConverged)
	}
	away.stop()
	vanished.stop()
	b.remove("letgo")
	here.reports("letgo", v1alpha1.NetworkRestored)
	// empty is selected, and never had an agent: it holds nothing.
	message := b.holds("letgo", away.name, vanished.name)
	const remedy = "nodeagent uninstall --node letgo-away"
	if !strings.Contains(message, "has not answered") || !strings.Contains(message, remedy) {
		t.Errorf("it does not say what to do: %s", message)
	}
	if here.mtu() != 1500 || away.mtu() != 9000 || vanished.mtu() != 9000 || empty.mtu() != 1500 {
		t.Errorf("MTUs %d, %d, %d and %d", here.mtu(), away.mtu(), vanished.mtu(), empty.mtu())
	}

	if err := b.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: vanished.name}}); err != nil {
		t.Fatal(err)
	}
	b.holds("letgo", away.name)
	var said []string
	if err := node.Uninstall(t.Context(), b.config, away.name, func(line string) { said = append(said, line) }); err != nil {
		t.Fatal(err)
	}
	b.gone("letgo")
	if !slices.Equal(said, []string{"nodevirtualization letgo-away"}) || away.mtu() != 9000 {
		t.Errorf("%v, MTU %d", said, away.mtu())
	}
	away.start()
	away.has(1500)
}
