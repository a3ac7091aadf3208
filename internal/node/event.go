package node

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// newEvent is an event about a Node, which kubectl describe node shows: it has
// the Node's name in place of its UID, as the kubelet's own events do.
func newEvent(node *corev1.Node, kind, reason, message string, at time.Time) *corev1.Event {
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", node.Name, at.UnixNano()), Namespace: metav1.NamespaceDefault},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: types.UID(node.Name)},
		Type:           kind, Reason: reason, Message: clip(message, mostMessage),
		FirstTimestamp: stamp(at), LastTimestamp: stamp(at), Count: 1,
		Source: corev1.EventSource{Component: Manager, Host: node.Name}, ReportingController: "virtnode.io/" + Manager, ReportingInstance: node.Name,
	}
}

// transitions has an event for each of the agent's conditions that has another
// status after a write.
func transitions(before *corev1.Node, after runtime.Object, at time.Time) []*corev1.Event {
	node, ok := after.(*corev1.Node)
	if !ok {
		return nil
	}
	was := make(map[corev1.NodeConditionType]corev1.ConditionStatus)
	for i := range before.Status.Conditions {
		was[before.Status.Conditions[i].Type] = before.Status.Conditions[i].Status
	}
	var events []*corev1.Event
	for i := range node.Status.Conditions {
		c := &node.Status.Conditions[i]
		old, known := was[c.Type]
		if (c.Type != VirtualizationReady && c.Type != HostNetworkReady) || old == c.Status || (!known && c.Status == corev1.ConditionTrue) {
			continue
		}
		kind := corev1.EventTypeWarning
		if c.Status == corev1.ConditionTrue {
			kind = corev1.EventTypeNormal
		}
		at = at.Add(time.Nanosecond) // names are made of it
		events = append(events, newEvent(node, kind, c.Reason, fmt.Sprintf("%s is %s: %s", c.Type, c.Status, c.Message), at))
	}
	return events
}
