package cluster_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// attempt is a write with an agent's token.
type attempt struct {
	path        string // below the API server
	method      types.PatchType
	body        string
	refusedWith string // empty: it is allowed
}

const mergePatch, applyPatch = types.MergePatchType, types.ApplyYAMLPatchType

// TestAnAgentWritesToItsOwnNodeOnly tries what a stolen token would be used for.
func TestAnAgentWritesToItsOwnNodeOnly(t *testing.T) {
	config := withAgents(t)
	clients := kubernetes.NewForConfigOrDie(config)
	makeNode(t, clients, "cred-a")
	makeNode(t, clients, "cred-b")
	other := &v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: "canary"}}
	if err := newObjects(t, config).Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	const a, b = "/api/v1/nodes/cred-a", "/api/v1/nodes/cred-b"
	const nv = "/apis/virtnode.io/v1alpha1/nodevirtualizations/"
	const ownNode, ownObject, prefix, conditionsOnly = "writes to its own Node only", "its own NodeVirtualization only", "labels that begin with virtnode.io/ only", "VirtualizationReady and HostNetworkReady only"
	label := func(key string) string { return `{"metadata":{"labels":{"` + key + `":"true"}}}` }
	condition := func(kind string) string {
		return `{"apiVersion":"v1","kind":"Node","metadata":{"name":"cred-a"},"status":{"conditions":[{"type":"` + kind + `","status":"False"}]}}`
	}
	object := func(name, more string) string {
		return `{"apiVersion":"virtnode.io/v1alpha1","kind":"NodeVirtualization","metadata":{"name":"` + name + `"` + more + `}}`
	}
	token := kubernetes.NewForConfigOrDie(as(config, agentToken(t, clients, "cred-a")))
	try := func(name string, with *kubernetes.Clientset, test attempt) {
		t.Run(name, func(t *testing.T) {
			err := patch(t, with, test)
			switch {
			case test.refusedWith == "" && err != nil:
				t.Error(err)
			case test.refusedWith != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), test.refusedWith)):
				t.Errorf("%v, want a refusal with %q", err, test.refusedWith)
			}
		})
	}
	for name, test := range map[string]attempt{
		"a label of its own Node":           {a, mergePatch, label("virtnode.io/kvm"), ""},
		"a label of another Node":           {b, mergePatch, label("virtnode.io/kvm"), ownNode},
		"another's prefix":                  {a, mergePatch, label("kubevirt.io/schedulable"), prefix},
		"a prefix before the prefix":        {a, mergePatch, label("evil-virtnode.io/kvm"), prefix},
		"a subdomain":                       {a, mergePatch, label("x.virtnode.io/kvm"), prefix},
		"the prefix as a part of a domain":  {a, mergePatch, label("virtnode.io.evil/kvm"), prefix},
		"a role":                            {a, mergePatch, label("node-role.kubernetes.io/control-plane"), prefix},
		"to take another's label away":      {a, mergePatch, `{"metadata":{"labels":{"example.org/rack":null}}}`, prefix},
		"to change another's label":         {a, mergePatch, label("example.org/rack"), prefix},
		"an annotation":                     {a, mergePatch, `{"metadata":{"annotations":{"virtnode.io/x":"y"}}}`, "labels only"},
		"a finalizer":                       {a, mergePatch, `{"metadata":{"finalizers":["virtnode.io/x"]}}`, "labels only"},
		"a taint":                           {a, mergePatch, `{"spec":{"taints":[{"key":"virtnode.io/x","effect":"NoSchedule"}]}}`, "spec"},
		"to cordon":                         {a, mergePatch, `{"spec":{"unschedulable":true}}`, "spec"},
		"a condition of its own Node":       {a + "/status", applyPatch, condition("VirtualizationReady"), ""},
		"the other condition":               {a + "/status", applyPatch, condition("HostNetworkReady"), ""},
		"a condition of another Node":       {b + "/status", applyPatch, strings.Replace(condition("VirtualizationReady"), "cred-a", "cred-b", 1), ownNode},
		"a condition that is the kubelet's": {a + "/status", mergePatch, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, conditionsOnly},
		"a condition of somebody else":      {a + "/status", applyPatch, condition("example.org/Ready"), conditionsOnly},
		"to drop all conditions":            {a + "/status", mergePatch, `{"status":{"conditions":[]}}`, conditionsOnly},
		"capacity":                          {a + "/status", mergePatch, `{"status":{"capacity":{"devices.kubevirt.io/kvm":"1k"}}}`, "conditions only"},
		"an address":                        {a + "/status", mergePatch, `{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}`, "conditions only"},
		"its own NodeVirtualization":        {nv + "cred-a", applyPatch, object("cred-a", ""), ""},
		"another's NodeVirtualization":      {nv + "cred-b", applyPatch, object("cred-b", ""), ownObject},
		"the status of another's":           {nv + "canary/status", mergePatch, `{"status":{"verdict":"Ready"}}`, ownObject},
		"an owner that is another Node":     {nv + "cred-a", applyPatch, object("cred-a", `,"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"cred-b","uid":"1"}]`), "belongs to its Node"},
		"a NodeVirtualization that stays":   {nv + "cred-a", applyPatch, object("cred-a", `,"finalizers":["virtnode.io/x"]`), "has no finalizer"},
		"a HostNetwork":                     {"/apis/virtnode.io/v1alpha1/hostnetworks/x", applyPatch, `{"apiVersion":"virtnode.io/v1alpha1","kind":"HostNetwork","metadata":{"name":"x"},"spec":{}}`, "cannot patch resource"},
		"to make a Node":                    {"/api/v1/nodes/cred-c", applyPatch, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"cred-c"}}`, "cannot create resource"},
		"a pod":                             {"/api/v1/namespaces/default/pods/x", mergePatch, `{}`, "cannot patch resource"},
	} {
		try(name, token, test)
	}
	unbound := kubernetes.NewForConfigOrDie(as(config, agentToken(t, clients, "")))
	try("a token that is bound to no pod", unbound, attempt{a, mergePatch, label("virtnode.io/kvm"), ownNode})
	if err := token.CoreV1().Nodes().Delete(t.Context(), "cred-a", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("to delete its Node: %v", err)
	}
	for _, event := range []struct {
		namespace, kind, about string
		allowed                bool
	}{{"default", "Node", "cred-a", true}, {"default", "Node", "cred-b", false}, {"default", "Pod", "cred-a", false}, {agentNamespace, "Node", "cred-a", false}} {
		made := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "x", Namespace: event.namespace},
			InvolvedObject: corev1.ObjectReference{Kind: event.kind, Name: event.about, Namespace: strings.TrimPrefix(event.namespace, "default")},
		}
		if _, err := token.CoreV1().Events(event.namespace).Create(t.Context(), made, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); (err == nil) != event.allowed || (err != nil && !strings.Contains(err.Error(), "about its own Node only")) {
			t.Errorf("an event %+v: %v", event, err)
		}
	}
}

// patch makes the attempt, and throws it away.
func patch(t *testing.T, with *kubernetes.Clientset, test attempt) error {
	t.Helper()
	request := with.CoreV1().RESTClient().Patch(test.method).AbsPath(test.path).Param("dryRun", metav1.DryRunAll).Body([]byte(test.body))
	if test.method == applyPatch {
		request = request.Param("fieldManager", "nodeagent")
	}
	return request.Do(t.Context()).Error()
}
