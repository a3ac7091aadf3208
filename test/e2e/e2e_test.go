package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/virtnode/nodeagent/test/cluster/manifests"
	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

// stepTimeout bounds one step on a busy machine; a quiet one needs seconds.
const stepTimeout = 3 * time.Minute

// buildImages packs the agent, and what holds the pods, as make image does.
func buildImages(t *testing.T, agent string) []string {
	t.Helper()
	dir := t.TempDir()
	packer, pause, controller := filepath.Join(dir, "image"), filepath.Join(dir, "pause"), filepath.Join(dir, "controller")
	must(t, hosttest.Build(packer, "./deploy/image"))
	must(t, hosttest.Build(pause, "./test/e2e/pause"))
	must(t, hosttest.Build(controller, "./cmd/nodeagent-controller"))
	var images []string
	for name, binary := range map[string]string{"nodeagent": agent, "pause": pause, "nodeagent-controller": controller} {
		out := filepath.Join(dir, name+"-image")
		if text, err := exec.CommandContext(t.Context(), packer, "--name", "localhost/"+name+":devel", "--out", out, binary).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		images = append(images, filepath.Join(out, name+".oci.tar"))
	}
	return images
}

// step runs one part of the story. The next ones need it.
func step(t *testing.T, c *Cluster, name string, do func(ctx context.Context, t *testing.T)) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
		defer cancel()
		do(ctx, t)
	})
	if !ok {
		t.Fatal(c.state(t), c.lastWords())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state is what kubectl get pods and events would say.
func (c *Cluster) state(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	pods, err := c.Client.CoreV1().Pods("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, pod := range pods.Items {
		fmt.Fprintf(&text, "\npod %s/%s on %s: %s", pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Status.Phase)
		for _, status := range pod.Status.ContainerStatuses {
			fmt.Fprintf(&text, " ready=%v restarts=%d %+v", status.Ready, status.RestartCount, status.State)
		}
		said, err := c.Client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(context.Background())
		fmt.Fprintf(&text, "\n%s %v", said, err)
	}
	events, err := c.Client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{FieldSelector: "type=Warning"})
	if err != nil {
		return err.Error()
	}
	for _, event := range events.Items {
		fmt.Fprintf(&text, "\n%s %s/%s: %s", event.Reason, event.InvolvedObject.Kind, event.InvolvedObject.Name, event.Message)
	}
	return text.String()
}

func TestCluster(t *testing.T) {
	hosttest.Need(t, hosttest.E2E, Missing())
	agent := hosttest.BuildAgent(t)
	c, err := startCluster(t.Context(), buildImages(t, agent), "node-a", "node-b")
	must(t, err)
	objects, err := manifests.Kustomize(t.Context(), manifests.OverlayDir("privileged"))
	must(t, err)
	step(t, c, "kustomize installs the agent on both nodes", func(ctx context.Context, t *testing.T) {
		must(t, c.Apply(ctx, objects...))
		must(t, c.rolledOut(ctx, "localhost/nodeagent:devel"))
	})
	step(t, c, "the agents see their nodes through their mounts", func(ctx context.Context, t *testing.T) {
		for _, node := range c.Nodes {
			must(t, node.found(ctx, "kubelet/registration", "kubelet/mount-propagation", "runtime/cri", "cni/network", "cni/plugins", "cni/multus", "devices/tun"))
		}
	})
	step(t, c, "labels, conditions and a NodeVirtualization appear", func(ctx context.Context, t *testing.T) {
		for _, node := range c.Nodes {
			must(t, c.published(ctx, node.Name))
		}
	})
	step(t, c, "Prometheus scrapes what the PodMonitor names", func(ctx context.Context, t *testing.T) { c.scraped(ctx, t) })
	step(t, c, "a HostNetwork gives a pod on a labelled node a second interface", func(ctx context.Context, t *testing.T) { c.secondInterface(ctx, t) })
	step(t, c, "a new image is rolled out, and no label is lost", func(ctx context.Context, t *testing.T) { c.rollOut(ctx, t) })
	step(t, c, "a deleted HostNetwork is undone", func(ctx context.Context, t *testing.T) { c.networkUndone(ctx, t) })
	step(t, c, "kustomize removes it", func(ctx context.Context, t *testing.T) {
		must(t, c.Delete(ctx, objects...))
		out, err := exec.CommandContext(ctx, agent, "uninstall", "--kubeconfig", c.Kubeconfig).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		c.nothingLeft(ctx, t)
	})
	step(t, c, "with capabilities alone it measures a VM of another user", func(ctx context.Context, t *testing.T) { c.telemetryOnly(ctx, t) })
	step(t, c, "Helm installs it, tests it and removes it", func(ctx context.Context, t *testing.T) {
		for _, args := range [][]string{
			{"install", "nodeagent", manifests.ChartDir(), "--create-namespace", "--set", "config.kubernetes.nfd.write=true", "--wait", "--timeout", "2m"},
			{"test", "nodeagent", "--timeout", "1m"},
			{"uninstall", "nodeagent", "--wait", "--timeout", "1m"},
		} {
			if args[0] == "uninstall" {
				for _, node := range c.Nodes {
					must(t, c.published(ctx, node.Name))
					must(t, node.hasFeatures(ctx))
				}
			}
			_, err := manifests.Helm(ctx, c.Kubeconfig, append(args, "--namespace", manifests.Namespace)...)
			must(t, err)
		}
		// Helm leaves the namespace that it made, and in it the lease of the controller.
		must(t, c.Delete(ctx, object(t, `{apiVersion: v1, kind: Namespace, metadata: {name: `+manifests.Namespace+`}}`)))
		c.nothingLeft(ctx, t)
	})
}

// ours are the labels of a node that the agent has written.
func ours(node *corev1.Node) map[string]string {
	labels := maps.Clone(node.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return !strings.HasPrefix(key, "virtnode.io/") })
	return labels
}

// published waits until the agent has said in the cluster what it found.
func (c *Cluster) published(ctx context.Context, name string) error {
	return hosttest.Poll(ctx, "what the agent publishes of "+name, func() (bool, error) {
		node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		judged := slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
			return condition.Type == "VirtualizationReady" && condition.Reason != ""
		})
		body, err := c.Client.Discovery().RESTClient().Get().AbsPath("/apis/virtnode.io/v1alpha1/nodevirtualizations", name).DoRaw(ctx)
		return judged && len(ours(node)) > 0 && err == nil && strings.Contains(string(body), `"findings"`), nil
	})
}

// rollOut replaces the agents and holds the labels of every version of the
// nodes meanwhile against those from before.
func (c *Cluster) rollOut(ctx context.Context, t *testing.T) {
	t.Helper()
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	must(t, err)
	before := make(map[string]map[string]string)
	for i := range nodes.Items {
		before[nodes.Items[i].Name] = ours(&nodes.Items[i])
	}
	changes, err := c.Client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{ResourceVersion: nodes.ResourceVersion})
	must(t, err)
	defer changes.Stop()
	patch := []byte(`{"spec": {"template": {"spec": {"containers": [{"name": "nodeagent", "image": "localhost/nodeagent:next"}]}}}}`)
	_, err = c.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, "nodeagent", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	must(t, c.rolledOut(ctx, "localhost/nodeagent:next"))
	// A mark of our own is the last change that is of interest.
	for name := range before {
		_, err := c.Client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, []byte(`{"metadata": {"labels": {"example/mark": "set"}}}`), metav1.PatchOptions{})
		must(t, err)
	}
	for marked, all := 0, len(before); marked < all; {
		select {
		case <-ctx.Done():
			t.Fatal("the watch of nodes does not come to the mark")
		case change := <-changes.ResultChan():
			node, isNode := change.Object.(*corev1.Node)
			if !isNode {
				t.Fatalf("the watch of nodes ended: %+v", change.Object)
			}
			for key, value := range before[node.Name] {
				if node.Labels[key] != value {
					t.Errorf("label %s of %s went from %q to %q", key, node.Name, value, node.Labels[key])
				}
			}
			if node.Labels["example/mark"] != "" && before[node.Name] != nil {
				marked++
				before[node.Name] = nil
			}
		}
	}
}

// rolledOut waits until every node has a ready agent of the image.
func (c *Cluster) rolledOut(ctx context.Context, image string) error {
	return hosttest.Poll(ctx, "the DaemonSet", func() (bool, error) {
		set, err := c.Client.AppsV1().DaemonSets(manifests.Namespace).Get(ctx, "nodeagent", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		status, all := set.Status, int32(len(c.Nodes))
		return set.Spec.Template.Spec.Containers[0].Image == image && status.ObservedGeneration == set.Generation &&
			status.DesiredNumberScheduled == all && status.UpdatedNumberScheduled == all && status.NumberReady == all, nil
	})
}

func get(ctx context.Context, url string) (body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if body, err = io.ReadAll(response.Body); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return body, err
}

// found waits until the node's report has the checks, all of them ready.
func (n *Node) found(ctx context.Context, checks ...string) error {
	var last strings.Builder
	err := hosttest.Poll(ctx, "the checks of "+n.Name, func() (bool, error) {
		body, err := get(ctx, "http://"+n.Address+":9477/report")
		if err != nil {
			last.Reset()
			last.WriteString(err.Error())
			return false, nil // the first check may be running
		}
		var report struct {
			Findings []struct{ Area, Check, Status, Reason, Message string }
		}
		if err := json.Unmarshal(body, &report); err != nil {
			return false, err
		}
		missing := slices.Clone(checks)
		last.Reset()
		for _, finding := range report.Findings {
			name := finding.Area + "/" + finding.Check
			if !slices.Contains(checks, name) {
				continue
			}
			if finding.Status == "Ready" {
				missing = slices.DeleteFunc(missing, func(s string) bool { return s == name })
			}
			fmt.Fprintf(&last, "\n%s: %s %s %s", name, finding.Status, finding.Reason, finding.Message)
		}
		return len(missing) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, last.String())
	}
	return nil
}

// nothingLeft looks for what carries the project's name in the cluster.
func (c *Cluster) nothingLeft(ctx context.Context, t *testing.T) {
	t.Helper()
	var left []string
	err := hosttest.Poll(ctx, "nothing to be left", func() (bool, error) {
		var err error
		left, err = c.left(ctx)
		return err == nil && len(left) == 0, err
	})
	if err != nil {
		t.Fatalf("%v: %v", err, left)
	}
}

func (c *Cluster) left(ctx context.Context) ([]string, error) {
	var left []string
	_, lists, err := c.Client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || strings.Contains(resource.Name, "/") || resource.Kind == "Event" {
				continue
			}
			path := "/apis/" + list.GroupVersion
			if list.GroupVersion == "v1" {
				path = "/api/v1"
			}
			body, err := c.Client.Discovery().RESTClient().Get().AbsPath(path, resource.Name).DoRaw(ctx)
			if apierrors.IsNotFound(err) {
				continue // a kind that has just gone
			}
			if err != nil {
				return nil, fmt.Errorf("list %s: %w", path, err)
			}
			var items struct {
				Items []struct {
					Metadata metav1.ObjectMeta
					Status   struct{ Conditions []struct{ Type string } }
				}
			}
			if err := json.Unmarshal(body, &items); err != nil {
				return nil, err
			}
			for _, item := range items.Items {
				name := item.Metadata.Name
				if strings.HasPrefix(name, "nodeagent") || strings.HasSuffix(name, ".virtnode.io") {
					left = append(left, resource.Kind+" "+item.Metadata.Namespace+"/"+name)
				}
				for key := range item.Metadata.Labels {
					if resource.Kind == "Node" && strings.HasPrefix(key, "virtnode.io/") {
						left = append(left, "label "+key+" of "+name)
					}
				}
				for _, condition := range item.Status.Conditions {
					if resource.Kind == "Node" && slices.Contains([]string{"VirtualizationReady", "HostNetworkReady"}, condition.Type) {
						left = append(left, "condition "+condition.Type+" of "+name)
					}
				}
			}
		}
	}
	return left, nil
}
