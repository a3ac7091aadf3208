package manifests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// notInKubernetes are kinds of OpenShift and the Prometheus operator, which a
// plain API server does not know.
func notInKubernetes() []string { return []string{"SecurityContextConstraints", "PodMonitor"} }

func kustomize(t *testing.T, overlay string) []unstructured.Unstructured {
	t.Helper()
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	objects, err := Kustomize(t.Context(), OverlayDir(overlay))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func chart(t *testing.T, settings ...string) []unstructured.Unstructured {
	t.Helper()
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	objects, err := Chart(t.Context(), Namespace, settings...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// taker hands objects to an API server with strict validation.
type taker struct {
	client dynamic.Interface
	mapper *restmapper.DeferredDiscoveryRESTMapper
}

func (s taker) take(ctx context.Context, object unstructured.Unstructured, dry bool) error {
	kind := object.GroupVersionKind()
	mapping, err := s.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = s.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = s.client.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	options := metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}
	if dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	_, err = resource.Create(ctx, &object, options)
	return err
}

func TestAnAPIServerTakesEveryObject(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	config := cluster.New(t)
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	known, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	server := taker{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(known))}
	sets := map[string][]unstructured.Unstructured{"chart": chart(t, "podMonitor.enabled=true")}
	for _, overlay := range Overlays() {
		sets[overlay] = kustomize(t, overlay)
	}
	// What the others live in is made for real.
	for _, object := range sets["privileged"] {
		if object.GetKind() == "Namespace" {
			if err := server.take(t.Context(), object, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, objects := range sets {
		t.Run(name, func(t *testing.T) {
			taken := 0
			for _, object := range objects {
				if slices.Contains(notInKubernetes(), object.GetKind()) || object.GetKind() == "Namespace" {
					continue
				}
				if err := server.take(t.Context(), object, true); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
				taken++
			}
			if taken < 3 {
				t.Errorf("only %d objects were rendered", taken)
			}
		})
	}
	t.Run("a typing error is refused", func(t *testing.T) {
		for _, object := range sets["privileged"] {
			if object.GetKind() != "DaemonSet" {
				continue
			}
			wrong := object.DeepCopy()
			if err := unstructured.SetNestedField(wrong.Object, true, "spec", "template", "spec", "hostNetwrok"); err != nil {
				t.Fatal(err)
			}
			if err := server.take(t.Context(), *wrong, true); !apierrors.IsBadRequest(err) {
				t.Errorf("the error is %v, want one about the field", err)
			}
		}
	})
}

// byName is a set of objects without those that only one side has on purpose.
func byName(objects []unstructured.Unstructured) map[string]any {
	named := make(map[string]any)
	for _, object := range objects {
		if Hook(object) || object.GetKind() == "Namespace" {
			continue // Helm makes the namespace itself
		}
		named[object.GetKind()+" "+object.GetNamespace()+"/"+object.GetName()] = object.Object
	}
	return named
}

func TestChartInstallsWhatKustomizeInstalls(t *testing.T) {
	if diff := cmp.Diff(byName(kustomize(t, "privileged")), byName(chart(t))); diff != "" {
		t.Errorf("the chart differs from deploy/daemonset (-kustomize +Helm):\n%s", diff)
	}
}

// TestPodMonitorLeavesTheLabelsOfVMs: the operator gives every target the labels
// namespace and pod, and without honorLabels those of VMs would make way.
func TestPodMonitorLeavesTheLabelsOfVMs(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	text, err := os.ReadFile(filepath.Join(hosttest.Root(), "deploy", "monitoring", "podmonitor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &want.Object); err != nil {
		t.Fatal(err)
	}
	endpoints, _, err := unstructured.NestedSlice(want.Object, "spec", "podMetricsEndpoints")
	if err != nil || len(endpoints) != 1 || endpoints[0].(map[string]any)["honorLabels"] != true {
		t.Errorf("the endpoints are %v, %v: want one that honors labels", endpoints, err)
	}
	objects := chart(t, "podMonitor.enabled=true")
	at := slices.IndexFunc(objects, func(object unstructured.Unstructured) bool { return object.GetKind() == "PodMonitor" })
	if at < 0 {
		t.Fatal("the chart has no PodMonitor")
	}
	if diff := cmp.Diff(want.Object["spec"], objects[at].Object["spec"]); diff != "" {
		t.Errorf("the chart's PodMonitor differs from deploy/monitoring (-want +Helm):\n%s", diff)
	}
}

func TestChartPutsEverythingIntoItsNamespace(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	objects, err := Chart(t.Context(), "elsewhere", "podMonitor.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		text, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), Namespace) {
			t.Errorf("%s %s speaks of %s", object.GetKind(), object.GetName(), Namespace)
		}
	}
}

func TestAgentTakesEveryConfiguration(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	agent := hosttest.BuildAgent(t)
	sets := map[string][]unstructured.Unstructured{"chart on another port": chart(t, "agent.port=9999")}
	for _, overlay := range Overlays() {
		sets[overlay] = kustomize(t, overlay)
	}
	for name, objects := range sets {
		t.Run(name, func(t *testing.T) {
			found := 0
			for _, object := range objects {
				text, ok, err := unstructured.NestedString(object.Object, "data", "nodeagent.yaml")
				if err != nil || !ok {
					continue
				}
				found++
				file := filepath.Join(t.TempDir(), "nodeagent.yaml")
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.CommandContext(t.Context(), agent, "config", "--config", file).CombinedOutput()
				if err != nil {
					t.Errorf("%v\n%s", err, out)
				}
				if strings.Contains(name, "port") && !strings.Contains(string(out), "listenAddress: :9999") {
					t.Errorf("the agent would not listen on port 9999:\n%s", text)
				}
			}
			if found != 1 {
				t.Errorf("%d configurations were found, want one", found)
			}
		})
	}
}

func TestChartIsClean(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	if _, err := Helm(t.Context(), "", "lint", "--strict", "--namespace", Namespace, ChartDir()); err != nil {
		t.Error(err)
	}
}

func TestChartRefusesBadValues(t *testing.T) {
	hosttest.Need(t, hosttest.Cluster, cluster.MissingPackaging())
	for name, test := range map[string]struct{ setting, why string }{
		"a name that does not exist": {"agent.prot=1", "prot"},
		"a port out of range":        {"agent.port=70000", "maximum"},
		"no image":                   {"image.repository=", "repository"},
		"half a digest":              {"image.digest=sha256:abc", "digest"},
		"no node at a time":          {"agent.maxUnavailable=0", "/agent/maxUnavailable"},
		"an unknown pull policy":     {"image.pullPolicy=Sometimes", "pullPolicy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Chart(t.Context(), Namespace, test.setting); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("the error is %v, want one about %q", err, test.why)
			}
		})
	}
}
