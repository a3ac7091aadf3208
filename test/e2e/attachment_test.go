package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
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

// secondInterface renders a policy's attachment and starts a pod on it.
func (c *Cluster) secondInterface(t *testing.T, ctx context.Context) {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(policy, []byte(attachmentPolicy), 0o600))
	out, err := exec.CommandContext(ctx, hosttest.BuildAgent(t), "render", "attachments", "-f", policy).Output()
	must(t, err)
	must(t, c.Apply(ctx, object(t, attachmentKind), object(t, string(out))))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "two-interfaces", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "storage"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "localhost/pause:devel", ImagePullPolicy: corev1.PullNever,
		}}},
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
