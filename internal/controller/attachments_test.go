package controller_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// definition returns a NetworkAttachmentDefinition, nil if there is none.
func (b *bed) definition(name string) *unstructured.Unstructured {
	b.t.Helper()
	object := &unstructured.Unstructured{}
	object.SetAPIVersion("k8s.cni.cncf.io/v1")
	object.SetKind("NetworkAttachmentDefinition")
	err := b.Get(b.t.Context(), client.ObjectKey{Namespace: "vms", Name: name}, object)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return object
}

func (b *bed) cni(name string) string {
	if object := b.definition(name); object != nil {
		text, _, _ := unstructured.NestedString(object.Object, "spec", "config")
		return text
	}
	return ""
}

// attachments waits for the condition of a policy's attachments.
func (b *bed) attachments(name string, status metav1.ConditionStatus, says string) {
	b.t.Helper()
	b.eventually("attachments of "+name, func() (bool, string) {
		policy, err := b.policy(name)
		if err != nil {
			return false, err.Error()
		}
		c := meta.FindStatusCondition(policy.Status.Conditions, v1alpha1.ConditionAttachmentsReady)
		if c == nil {
			return false, "no condition"
		}
		return c.Status == status && c.ObservedGeneration == policy.Generation && strings.Contains(c.Message, says), c.Message
	})
}

func TestAttachmentsAreRendered(t *testing.T) {
	b := withKinds(t)
	const spec = `{nodeSelector: {matchLabels: {rack: nowhere}}, interfaces: [{name: storage, match: {driver: igb}, mtu: 9000}],
		attachments: [{name: fast, namespace: vms, type: macvlan, parent: storage}, {name: mine, namespace: vms, type: macvtap, parent: storage}]}`
	b.apply("nads", spec)
	b.attachments("nads", metav1.ConditionFalse, "install Multus")
	b.installMultus()
	b.change("nads", func(s *v1alpha1.HostNetworkSpec) { s.Priority = 1 })
	b.attachments("nads", metav1.ConditionFalse, `namespaces "vms" not found`)
	if err := b.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "vms"}}); err != nil {
		t.Fatal(err)
	}
	b.change("nads", func(s *v1alpha1.HostNetworkSpec) { s.Priority = 2 })
	b.attachments("nads", metav1.ConditionTrue, "2 NetworkAttachmentDefinitions")
	fast := b.definition("fast")
	policy, err := b.policy("nads")
	if err != nil || fast == nil || !metav1.IsControlledBy(fast, &policy) {
		t.Fatalf("%v, %+v", err, fast)
	}
	if text := b.cni("fast"); !strings.Contains(text, `"type":"macvlan"`) || !strings.Contains(text, `"master":"storage"`) {
		t.Errorf("%s", text)
	}
	if got := b.definition("mine").GetAnnotations()["k8s.v1.cni.cncf.io/resourceName"]; got != "macvtap.network.kubevirt.io/mine" {
		t.Errorf("resource %q", got)
	}

	// What somebody else has changed comes back; what did not change is not written.
	version := b.definition("mine").GetResourceVersion()
	fast.Object["spec"] = map[string]any{"config": "{}"}
	if err := b.Update(t.Context(), fast); err != nil {
		t.Fatal(err)
	}
	b.change("nads", func(s *v1alpha1.HostNetworkSpec) { s.Attachments[0].Mode = "vepa" })
	b.eventually("fast is back", func() (bool, string) {
		text := b.cni("fast")
		return strings.Contains(text, `"mode":"vepa"`), text
	})
	if now := b.definition("mine").GetResourceVersion(); now != version {
		t.Error("what has not changed was written")
	}

	// Somebody else's definition is not touched, and one of two policies has a name.
	other := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"config": "{}"}}}
	other.SetAPIVersion("k8s.cni.cncf.io/v1")
	other.SetKind("NetworkAttachmentDefinition")
	other.SetNamespace("vms")
	other.SetName("taken")
	if err := b.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Delete(context.Background(), other) })
	b.apply("nads2", strings.Replace(spec, "name: mine", "name: taken", 1))
	b.attachments("nads2", metav1.ConditionFalse, "vms/fast is of the HostNetwork nads already")
	b.attachments("nads2", metav1.ConditionFalse, "vms/taken is there already, and not ours")
	if text := b.cni("taken"); text != "{}" {
		t.Errorf("somebody else's definition is %s", text)
	}
	b.remove("nads2")
	b.gone("nads2")

	b.change("nads", func(s *v1alpha1.HostNetworkSpec) { s.Attachments = s.Attachments[:1] })
	b.eventually("mine is gone", func() (bool, string) { return b.definition("mine") == nil, "" })
	if b.definition("fast") == nil || b.definition("taken") == nil {
		t.Error("more was removed than is not wanted any more")
	}
	b.remove("nads")
	b.gone("nads")
	b.eventually("fast is gone", func() (bool, string) { return b.definition("fast") == nil, "" })
}
