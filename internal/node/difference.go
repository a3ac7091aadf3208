package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// What is written. The words are those of the metrics.
const (
	writesLabels     = "labels"
	writesConditions = "conditions"
	writesObject     = "nodevirtualization"
	writesStatus     = "nodevirtualization-status"
)

// write is one server-side apply.
type write struct {
	what string
	body map[string]any
}

// clash is a field that somebody else has made something else of.
type clash struct {
	field        string // "label virtnode.io/kvm", "condition HostNetworkReady"
	manager      string
	theirs, ours string
}

func (c clash) String() string {
	return fmt.Sprintf("%s is %q, which %s has written; it would be %q", c.field, c.theirs, c.manager, c.ours)
}

// found is what is known of the API server's objects. Without a
// NodeVirtualization's kind, objects is false.
type found struct {
	node    *corev1.Node
	object  *v1alpha1.NodeVirtualization // nil: there is none
	objects bool
}

// differences lists the writes after which the API server has what is wanted:
// none when it has. A field that somebody else owns, and sees otherwise, is
// left to them. It is pure.
func differences(w wanted, is found, now time.Time) ([]write, []clash) {
	var writes []write
	owned := ownersOf(is.node.ManagedFields)
	labels, clashes, differ := labelsToApply(w.labels, is.node.Labels, owned.labels)
	if differ {
		writes = append(writes, labelsOf(is.node, labels))
	}
	conditions, more, differ := conditionsToApply(w.conditions, is.node.Status.Conditions, owned.conditions, now)
	clashes = append(clashes, more...)
	if differ {
		writes = append(writes, conditionsOf(is.node, conditions))
	}
	if !is.objects {
		return writes, clashes
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: is.node.Name, UID: is.node.UID}
	if is.object == nil || !equality.Semantic.DeepEqual(is.object.OwnerReferences, []metav1.OwnerReference{owner}) {
		writes = append(writes, write{writesObject, objectBody(is.node.Name, map[string]any{"ownerReferences": []metav1.OwnerReference{owner}}, nil)})
	}
	status := statusToApply(w, is.object, now)
	if is.object == nil || !equality.Semantic.DeepEqual(is.object.Status, status) {
		writes = append(writes, write{writesStatus, objectBody(is.node.Name, map[string]any{}, &status)})
	}
	return writes, clashes
}

// labelsToApply returns all labels that the agent shall own, and whether they
// differ from those that it owns.
func labelsToApply(want, have map[string]string, owned map[string][]string) (apply map[string]string, clashes []clash, differ bool) {
	apply = make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, there := have[key]
		if left, c := leave("label "+key, owned[key], there, value, want[key]); left {
			clashes = append(clashes, c...)
			continue
		}
		apply[key] = want[key]
		differ = differ || !there || value != want[key] || !ours(owned[key])
	}
	for key, managers := range owned {
		if _, kept := apply[key]; ours(managers) && !kept {
			differ = true // it goes by not being applied
		}
	}
	return apply, clashes, differ
}

// leave reports whether a field is left to others who own it: where they say
// something else, which is a clash, and where they say the same, unless the
// agent says it with them already.
func leave(field string, managers []string, there bool, theirs, wanted string) (bool, []clash) {
	foreign := others(managers)
	switch {
	case !there || len(foreign) == 0:
		return false, nil
	case theirs != wanted:
		return true, []clash{{field, strings.Join(foreign, ", "), theirs, wanted}}
	default:
		return !ours(managers), nil
	}
}

func conditionsToApply(want []Condition, have []corev1.NodeCondition, owned map[string][]string, now time.Time) (apply []corev1.NodeCondition, clashes []clash, differ bool) {
	wanted := make(map[string]bool)
	for _, c := range want {
		next := corev1.NodeCondition{
			Type: corev1.NodeConditionType(c.Type), Status: corev1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message,
			LastHeartbeatTime: stamp(now), LastTransitionTime: stamp(now),
		}
		managers := owned[c.Type]
		at := slices.IndexFunc(have, func(h corev1.NodeCondition) bool { return h.Type == next.Type })
		if at < 0 {
			differ = true
		} else {
			is := have[at]
			same := is.Status == next.Status && is.Reason == next.Reason && is.Message == next.Message
			words := func(status corev1.ConditionStatus, reason, message string) string {
				return fmt.Sprintf("%s, %s: %s", status, reason, message)
			}
			left, c := leave("condition "+c.Type, managers, true, words(is.Status, is.Reason, is.Message), words(next.Status, next.Reason, next.Message))
			if left {
				clashes = append(clashes, c...)
				continue
			}
			if is.Status == next.Status {
				next.LastTransitionTime = is.LastTransitionTime
			}
			if same {
				next.LastHeartbeatTime = is.LastHeartbeatTime
			}
			differ = differ || !same || !ours(managers)
		}
		wanted[c.Type] = true
		apply = append(apply, next)
	}
	for kind, managers := range owned {
		differ = differ || (ours(managers) && !wanted[kind])
	}
	return apply, clashes, differ
}

// statusToApply is the wanted status with the times that its conditions have.
func statusToApply(w wanted, is *v1alpha1.NodeVirtualization, now time.Time) v1alpha1.NodeVirtualizationStatus {
	status := w.status
	for _, c := range w.conditions {
		next := metav1.Condition{Type: c.Type, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message, LastTransitionTime: stamp(now)}
		if is != nil {
			at := slices.IndexFunc(is.Status.Conditions, func(h metav1.Condition) bool { return h.Type == c.Type })
			if at >= 0 && is.Status.Conditions[at].Status == next.Status {
				next.LastTransitionTime = is.Status.Conditions[at].LastTransitionTime
			}
		}
		status.Conditions = append(status.Conditions, next)
	}
	return status
}

// stamp is a time as the API server keeps it.
func stamp(at time.Time) metav1.Time { return metav1.NewTime(at.UTC().Truncate(time.Second)) }

// nodeBody names the very Node that was looked at: one of the same name that
// has taken its place is not meant, and none is to be made.
func nodeBody(node *corev1.Node) (body, metadata map[string]any) {
	metadata = map[string]any{"name": node.Name, "uid": node.UID}
	return map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": metadata}, metadata
}

// labelsOf applies labels. What is empty is left out: to apply an empty map is
// to own it.
func labelsOf(node *corev1.Node, labels map[string]string) write {
	body, metadata := nodeBody(node)
	if len(labels) > 0 {
		metadata["labels"] = labels
	}
	return write{writesLabels, body}
}

// conditionsOf applies conditions. What is empty is left out: to apply an empty
// list is to take away everybody's.
func conditionsOf(node *corev1.Node, conditions []corev1.NodeCondition) write {
	body, _ := nodeBody(node)
	if len(conditions) > 0 {
		body["status"] = map[string]any{"conditions": conditions}
	}
	return write{writesConditions, body}
}

func objectBody(name string, metadata map[string]any, status *v1alpha1.NodeVirtualizationStatus) map[string]any {
	metadata["name"] = name
	body := map[string]any{"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindNodeVirtualization, "metadata": metadata}
	if status != nil {
		body["status"] = status
	}
	return body
}
