package cluster_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// The budget of docs/design/scale.md, for the controller. None of it is for a
// node: their number does not count.
const (
	// What the cluster can do, and three lists that are watched.
	mostStartReads = 40
	// A definition is looked for before it is made.
	mostFirstReads = mostStartReads + definitions
	// The finalizer and the status of each policy, and its definitions; and room
	// for one status in four that is written again since more is known.
	mostFirstWrites = 2*policyCount + definitions + policyCount/4
	// The half of what the Deployment lets it have.
	mostMemory = 128 << 20
)

// TestTheControllerOfAThousandNodes lets a controller come to a cluster of a
// thousand nodes, and them do what nodes do.
func TestTheControllerOfAThousandNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	c := newCrowd(t)
	c.start()
	within(t, "it leads", func() bool { return c.log.count("Starting workers") > 0 })
	empty := c.usage().Resident
	c.stop()
	c.fill()
	c.start()
	first := c.during("the first start", func() { c.allConverged() })
	if first.reads > mostFirstReads || first.writes > mostFirstWrites {
		t.Errorf("the budget is %d reads and %d writes", mostFirstReads, mostFirstWrites)
	}
	t.Logf("memory: %d MiB in an empty cluster, and %d KiB for each node", empty>>20, (first.resident-empty)/crowdSize>>10)
	if first.resident > mostMemory {
		t.Errorf("%d bytes are resident; the budget is %d", first.resident, mostMemory)
	}
	c.oneNode()
	c.rest()
	c.harmless()
	c.disruptive()
	c.stop()
	c.start()
	again := c.during("a restart", func() { c.told(1) })
	if again.reads > mostStartReads || again.writes != 1 {
		t.Errorf("the budget is %d reads, and the one write that is due", mostStartReads)
	}
	c.stop()
}

func (c *crowd) allConverged() {
	c.t.Helper()
	for p := range policyCount {
		count := perRack
		if p < everybodys {
			count = crowdSize
		}
		c.status(policyName(p), "all nodes converge, and the attachments are there", func(s v1alpha1.HostNetworkStatus) bool {
			return s.Nodes.Converged == count && meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionAttachmentsReady)
		})
	}
	c.told(0)
}

// told lets a node report what is due, and returns when the controller has
// looked at it, and so at all that was told before.
func (c *crowd) told(drifted int) {
	c.t.Helper()
	state := v1alpha1.NetworkConverged
	if drifted > 0 {
		state = v1alpha1.NetworkDrifted
	}
	if err := c.say(0, rackName(0), 1, state); err != nil {
		c.t.Fatal(err)
	}
	c.status(rackName(0), "it is told of the drift", func(s v1alpha1.HostNetworkStatus) bool { return s.Nodes.Drifted == drifted })
}

// oneNode changes one node's report, and then its labels.
func (c *crowd) oneNode() {
	c.t.Helper()
	c.told(1)
	c.told(0) // and nothing of the start is left to be done
	if s := c.during("one node's report changes", func() { c.told(1) }); s.writes != 1 || s.reads > 0 {
		c.t.Error("the budget is one write, of the policy's status")
	}
	moved := c.during("a node moves to another rack", func() {
		err := c.patch(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nameOf(1)}}, map[string]any{"metadata": map[string]any{"labels": map[string]string{"rack": rackName(2)}}}, false)
		if err != nil {
			c.t.Fatal(err)
		}
		c.status(rackName(1), "it has one node less", func(s v1alpha1.HostNetworkStatus) bool { return s.Nodes.Selected == perRack-1 })
		c.status(rackName(2), "it has one node more", func(s v1alpha1.HostNetworkStatus) bool { return s.Nodes.Selected == perRack+1 })
	})
	if moved.writes != 2 || moved.reads > 0 {
		c.t.Error("the budget is one write for each of two policies")
	}
	err := c.patch(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nameOf(1)}}, map[string]any{"metadata": map[string]any{"labels": map[string]string{"rack": rackName(1)}}}, false)
	if err != nil {
		c.t.Fatal(err)
	}
	c.status(rackName(1), "the node is back", converged(perRack))
	c.status(rackName(2), "the node is back", converged(perRack))
	c.told(0) // and nothing of it is left to be done
	c.told(1)
}

// rest lets every kubelet write its Node's status, and every agent something
// that is not of the network. Nothing is made of it.
func (c *crowd) rest() {
	c.t.Helper()
	s := c.during("every kubelet and every agent writes", func() {
		c.each(func(i int) error {
			heartbeat := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}
			return errors.Join(
				c.patch(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nameOf(i)}}, map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{heartbeat}}}, true),
				c.write(i, map[string]any{"agent": "v1.2.4"}))
		})
		c.told(0)
	})
	if s.writes != 1 || s.reads > 0 {
		c.t.Error("the budget is the one write that is due")
	}
}

// change changes a policy, and returns its generation.
func (c *crowd) change(policy string) int64 {
	c.t.Helper()
	object := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: policy}}
	if err := c.patch(object, map[string]any{"spec": map[string]any{"priority": 1}}, false); err != nil {
		c.t.Fatal(err)
	}
	return object.Generation
}

// harmless changes a policy for everybody. The nodes report as fast as they can.
func (c *crowd) harmless() {
	c.t.Helper()
	const policy = "all-0"
	s := c.during("a change on a thousand nodes that disturbs nobody", func() {
		generation := c.change(policy)
		c.each(func(i int) error { return c.say(i, policy, generation, v1alpha1.NetworkConverged) })
		c.status(policy, "all nodes converge", converged(crowdSize))
	})
	// Reports are gathered for half a second. A policy that has changed may have
	// other attachments.
	if most := int(s.took/(500*time.Millisecond)) + 2; s.writes > most || s.reads > 1 {
		c.t.Errorf("the budget is one read, and %d writes in this time", most)
	}
}

// disruptive changes a policy for a rack, a tenth of whose nodes may be
// disturbed at the same time.
func (c *crowd) disruptive() {
	c.t.Helper()
	const policy, most = "rack-03", perRack / 10
	s := c.during("a change on 50 nodes that disturbs a tenth of them at a time", func() {
		generation := c.change(policy)
		c.each(func(i int) error {
			if rackName(i) != policy {
				return nil
			}
			return c.say(i, policy, generation, v1alpha1.NetworkAwaitingTurn)
		})
		done := 0
		c.status(policy, "all have had their turn", func(v1alpha1.HostNetworkStatus) bool {
			var found v1alpha1.HostNetwork
			if err := c.objects.Get(c.t.Context(), client.ObjectKey{Name: policy}, &found); err != nil {
				c.t.Fatal(err)
			}
			if len(found.Status.Turns) > most {
				c.t.Fatalf("%d nodes have their turn; %d may", len(found.Status.Turns), most)
			}
			for i := range c.reports {
				_, turn := found.TurnOf(nameOf(i))
				at := slices.IndexFunc(c.reports[i], func(r v1alpha1.NetworkReport) bool { return r.Policy == policy })
				if !turn || c.reports[i][at].State != v1alpha1.NetworkAwaitingTurn {
					continue
				}
				done++
				if err := c.say(i, policy, generation, v1alpha1.NetworkConverged); err != nil {
					c.t.Fatal(err)
				}
			}
			return found.Status.Nodes.Converged == perRack && done == perRack
		})
	})
	// One as the policy is new, one for each of ten turns and for the end, and
	// some while the nodes come to wait; more if they are slow to report.
	if budget := max(perRack/most+5, int(s.took/(500*time.Millisecond))+2); s.writes > budget || s.reads > 1 {
		c.t.Errorf("the budget is one read and %d writes", budget)
	}
}
