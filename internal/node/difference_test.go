package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// owning is what an object says of who owns some labels.
func owning(manager string, keys ...string) metav1.ManagedFieldsEntry {
	labels := make(map[string]any)
	for _, key := range keys {
		labels["f:"+key] = struct{}{}
	}
	raw, err := json.Marshal(map[string]any{"f:metadata": map[string]any{"f:labels": labels}})
	if err != nil {
		panic(err)
	}
	return metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1(string(raw))}
}

func TestLabelsToApply(t *testing.T) {
	const a, b = "virtnode.io/a", "virtnode.io/b"
	for name, test := range map[string]struct {
		want, have map[string]string
		owned      []metav1.ManagedFieldsEntry
		apply      map[string]string
		clashes    int
		differ     bool
	}{
		"nothing yet":                      {map[string]string{a: "1"}, nil, nil, map[string]string{a: "1"}, 0, true},
		"as it shall be":                   {map[string]string{a: "1"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning(Manager, a)}, map[string]string{a: "1"}, 0, false},
		"another value of ours":            {map[string]string{a: "2"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning(Manager, a)}, map[string]string{a: "2"}, 0, true},
		"one that is no longer true":       {nil, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning(Manager, a)}, map[string]string{}, 0, true},
		"one of somebody else":             {nil, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning("them", a)}, map[string]string{}, 0, false},
		"somebody says otherwise":          {map[string]string{a: "1", b: "1"}, map[string]string{a: "2"}, []metav1.ManagedFieldsEntry{owning("them", a)}, map[string]string{b: "1"}, 1, true},
		"somebody says the same":           {map[string]string{a: "1"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning("them", a)}, map[string]string{}, 0, false},
		"said together":                    {map[string]string{a: "1"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning("them", a), owning(Manager, a)}, map[string]string{a: "1"}, 0, false},
		"said together, and now otherwise": {map[string]string{a: "2"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{owning("them", a), owning(Manager, a)}, map[string]string{}, 1, true},
		"of nobody":                        {map[string]string{a: "1"}, map[string]string{a: "1"}, nil, map[string]string{a: "1"}, 0, true},
		"fields that cannot be read":       {map[string]string{a: "1"}, map[string]string{a: "1"}, []metav1.ManagedFieldsEntry{{Manager: Manager, FieldsV1: metav1.NewFieldsV1("{")}, {Manager: Manager}}, map[string]string{a: "1"}, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			apply, clashes, differ := labelsToApply(test.want, test.have, ownersOf(test.owned).labels)
			if diff := cmp.Diff(test.apply, apply); diff != "" || len(clashes) != test.clashes || differ != test.differ {
				t.Errorf("differ %v, clashes %v, %s", differ, clashes, diff)
			}
		})
	}
}

// TestAWriteIsTheLastOne applies what differs to the objects by hand, and finds
// that nothing differs any more.
func TestAWriteIsTheLastOne(t *testing.T) {
	want := truth{}.observe(lookAt(t, "vm-numa-sriov")).want()
	now := hosttest.Time()
	is := found{node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}}, objects: true}
	writes, _ := differences(want, is, now)
	var what []string
	for _, w := range writes {
		what = append(what, w.what)
		text, err := json.Marshal(w.body)
		if err != nil {
			t.Fatal(err)
		}
		if w.what == writesLabels || w.what == writesConditions {
			err = json.Unmarshal(text, is.node)
		} else {
			if is.object == nil {
				is.object = new(v1alpha1.NodeVirtualization)
			}
			err = json.Unmarshal(text, is.object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{writesLabels, writesConditions, writesObject, writesStatus}, what); diff != "" {
		t.Fatal(diff)
	}
	var keys []string
	for key := range want.labels {
		keys = append(keys, key)
	}
	conditions := metav1.ManagedFieldsEntry{Manager: Manager, Subresource: "status", FieldsV1: metav1.NewFieldsV1(`{"f:status":{"f:conditions":{"k:{\"type\":\"VirtualizationReady\"}":{}}}}`)}
	is.node.ManagedFields = []metav1.ManagedFieldsEntry{owning(Manager, keys...), conditions}
	if writes, clashes := differences(want, is, now.Add(time.Hour)); len(writes)+len(clashes) != 0 {
		t.Errorf("%v, %v", writes, clashes)
	}
	again := published(is).observe(lookAt(t, "vm-numa-sriov")).want()
	if writes, _ := differences(again, is, now.Add(time.Hour)); len(writes) != 0 {
		t.Errorf("after a restart: %v", writes)
	}
	is.node.UID = "2"
	writes, _ = differences(want, is, now)
	if !slices.ContainsFunc(writes, func(w write) bool { return w.what == writesObject }) {
		t.Error("an object that belongs to a Node of before is not handed over")
	}
}

func TestReasonsOfFailures(t *testing.T) {
	node := schema.GroupResource{Resource: "nodes"}
	for want, err := range map[string]error{
		failUnauthorized: apierrors.NewUnauthorized("no"),
		failForbidden:    apierrors.NewForbidden(node, "a", errors.New("no")),
		failDenied:       apierrors.NewForbidden(node, "a", errors.New("ValidatingAdmissionPolicy 'x' with binding 'x' denied request: no")),
		failNoKind:       apierrors.NewNotFound(node, "a"),
		failConflict:     fmt.Errorf("write: %w", apierrors.NewConflict(node, "a", errors.New("no"))),
		failThrottled:    apierrors.NewTooManyRequests("later", 1),
		failTimeout:      apierrors.NewTimeoutError("late", 1),
		failUnreachable:  apierrors.NewServiceUnavailable("starting"),
		failConfig:       &failure{failConfig, errors.New("no file")},
		failOther:        errors.New("else"),
	} {
		if got := reasonOf(err); got != want || remedyFor(got) == "" || !slices.Contains(reasons(), got) {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func FuzzOwners(f *testing.F) {
	f.Add(`{"f:metadata":{"f:labels":{".":{},"f:a/b":{}}},"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{}}}}}`)
	f.Fuzz(func(t *testing.T, fields string) {
		owned := ownersOf([]metav1.ManagedFieldsEntry{{Manager: Manager, FieldsV1: metav1.NewFieldsV1(fields)}})
		for key := range owned.labels {
			if !strings.Contains(fields, "f:") {
				t.Errorf("%q of nothing", key)
			}
		}
	})
}

// TestNothingIsAppliedAsNothing holds that what the agent gives up is left out:
// an empty list of conditions would take away the kubelet's.
func TestNothingIsAppliedAsNothing(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1"}}
	for _, w := range []write{labelsOf(node, map[string]string{}), conditionsOf(node, []corev1.NodeCondition{})} {
		text, err := json.Marshal(w.body)
		if err != nil || string(text) != `{"apiVersion":"v1","kind":"Node","metadata":{"name":"a","uid":"1"}}` {
			t.Errorf("%s: %s, %v", w.what, text, err)
		}
	}
}
