package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// attachmentKind is Multus' own kind, which clusters with Multus have.
const attachmentKind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition, shortNames: [net-attach-def]}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {config: {type: string}}}}}}
`

const attachmentPolicy = `
apiVersion: virtnode.io/v1alpha1
kind: HostNetwork
metadata: {name: storage}
spec:
  interfaces:
    - name: storage
      match: {name: ens1f0}
  attachments:
    - name: storage
      namespace: default
      type: macvlan
      parent: storage
      ipam: {type: host-local, range: 10.77.0.0/24}
`

func object(t *testing.T, text string) unstructured.Unstructured {
	t.Helper()
	var o unstructured.Unstructured
	must(t, yaml.Unmarshal([]byte(text), &o.Object))
	return o
}

// hasAltname reports whether the node's second NIC is called storage too.
func (n *Node) hasAltname(ctx context.Context) (bool, error) {
	out, err := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(n.pid), "-n", "ip", "link", "show", "dev", "ens1f0").CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("look at the NIC of %s: %w: %s", n.Name, err, out)
	}
	return strings.Contains(string(out), "altname storage"), nil
}

// secondInterface applies a policy and starts a pod on its attachment, on a
// node whose label says that it is ready.
func (c *Cluster) secondInterface(ctx context.Context, t *testing.T) {
	t.Helper()
	must(t, c.Apply(ctx, object(t, attachmentKind), object(t, attachmentPolicy)))
	for _, node := range c.Nodes {
		must(t, hosttest.Poll(ctx, "the altname on "+node.Name, func() (bool, error) { return node.hasAltname(ctx) }))
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "two-interfaces", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "storage"}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"virtnode.io/network.storage": "true"},
			Containers:   []corev1.Container{{Name: "main", Image: "localhost/pause:devel", ImagePullPolicy: corev1.PullNever}},
		},
	}
	pods := c.Client.CoreV1().Pods("default")
	must(t, hosttest.Poll(ctx, "the pod to be taken", func() (bool, error) {
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		return err == nil, nil // the namespace's account takes a moment
	}))
	var status []struct {
		Name, Interface string
		IPs             []string
	}
	must(t, hosttest.Poll(ctx, "the pod", func() (bool, error) {
		got, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil || got.Status.Phase != corev1.PodRunning {
			return false, err
		}
		return true, json.Unmarshal([]byte(got.Annotations["k8s.v1.cni.cncf.io/network-status"]), &status)
	}))
	if len(status) != 2 || status[1].Name != "default/storage" || status[1].Interface != "net1" || len(status[1].IPs) != 1 || !strings.HasPrefix(status[1].IPs[0], "10.77.0.") {
		t.Errorf("the pod's networks are %+v", status)
	}
	must(t, c.Delete(ctx, object(t, `{apiVersion: v1, kind: Pod, metadata: {name: two-interfaces, namespace: default}}`)))
}

// networkUndone deletes the policy: its finalizer waits for the nodes.
func (c *Cluster) networkUndone(ctx context.Context, t *testing.T) {
	t.Helper()
	must(t, c.Delete(ctx, object(t, attachmentPolicy)))
	for _, node := range c.Nodes {
		if there, err := node.hasAltname(ctx); err != nil || there {
			t.Errorf("the policy is gone; its altname on %s is still there: %v, %v", node.Name, there, err)
		}
	}
}
