package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// nfdBed is NFD's worker and master, which are real. The worker has a root of
// its own, since it reads one path only.
type nfdBed struct {
	t         *testing.T
	root, dir string // the worker's root; the folder features.d in it
}

func newNFDBed(t *testing.T) nfdBed {
	t.Helper()
	hosttest.Need(t, hosttest.Cluster, cluster.Missing()) // before a minute is spent on compiling
	b := nfdBed{t: t, root: t.TempDir()}
	missing := hosttest.BuildTools(b.root, "test/nfd")
	if os.Geteuid() != 0 {
		missing = errors.New("not root: the worker needs a root directory of its own")
	}
	hosttest.Need(t, hosttest.Cluster, missing)
	b.dir = filepath.Join(b.root, "etc", "kubernetes", "node-feature-discovery", "features.d")
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// work lets the worker look once.
func (b nfdBed) work() {
	b.t.Helper()
	worker := exec.Command("/nfd-worker", "-kubeconfig=/kubeconfig", "-oneshot", "-port=0", "-feature-sources=local", "-label-sources=local")
	worker.Env = []string{"NODE_NAME=n", "KUBERNETES_NAMESPACE=default"}
	worker.Dir, worker.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: b.root}
	if out, err := worker.CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// vmsRule makes a label of the agent's features.
const vmsRule = `{apiVersion: nfd.k8s-sigs.io/v1alpha1, kind: NodeFeatureRule, metadata: {name: vms}, spec: {rules: [
  {name: vms, labels: {"feature.node.kubernetes.io/vms": "true"}, matchFeatures: [
    {feature: local.feature, matchExpressions: {virtnode.io/kvm: {op: In, value: ["true"]}}}]}]}}`

// TestNFDLabelsTheNode goes the whole way: the agent's file, the worker's
// NodeFeature, the master's labels. With the file the labels go, too.
func TestNFDLabelsTheNode(t *testing.T) {
	b, own := newNFDBed(t), startOwn(t)
	config := own.Config()
	module := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/node-feature-discovery")
	module.Dir = filepath.Join(hosttest.Root(), "test", "nfd")
	out, err := module.Output()
	if err != nil {
		t.Fatal(err)
	}
	installCRDs(t, config, filepath.Join(strings.TrimSpace(string(out)), "deployment", "base", "nfd-crds", "nfd-api-crds.yaml"))
	rule := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(vmsRule), &rule.Object); err != nil {
		t.Fatal(err)
	}
	if err := newObjects(t, config).Create(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	clients := kubernetes.NewForConfigOrDie(config)
	makeNode(t, clients, "n")
	// The master relies on the annotation that a kubelet makes: it adds its own
	// by a JSON patch, which makes no parent.
	annotated := `{"metadata":{"annotations":{"volumes.kubernetes.io/controller-managed-attach-detach":"true"}}}`
	if _, err := clients.CoreV1().Nodes().Patch(t.Context(), "n", mergePatch, []byte(annotated), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(own.Kubeconfig())
	if err == nil {
		err = os.WriteFile(filepath.Join(b.root, "kubeconfig"), kubeconfig, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	runMaster(t, filepath.Join(b.root, "nfd-master"), own.Kubeconfig())

	const ofRule = "feature.node.kubernetes.io/vms"
	labelled := func(what string, want map[string]string) {
		t.Helper()
		b.work()
		diff := ""
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(what, diff)
			}
		})
		within(t, what, func() bool {
			n, err := clients.CoreV1().Nodes().Get(t.Context(), "n", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(n.Labels, func(key, _ string) bool { return key != ofRule && !strings.HasPrefix(key, node.Prefix) })
			diff = cmp.Diff(want, n.Labels)
			return diff == ""
		})
	}
	good, _ := machines(t)
	keep(t, b.dir, node.FeaturesOnly, node.Look{Report: good})
	labelled("the rule matches, and the features are no labels", map[string]string{ofRule: "true"})

	keep(t, b.dir, node.FeaturesAsLabels, node.Look{Report: good})
	want := linesOf(t, filepath.Join(b.dir, node.FeatureFileName))
	if want["virtnode.io/kvm"] != "true" || len(want) < 5 {
		t.Fatalf("the file has %v", want)
	}
	want[ofRule] = "true"
	labelled("every line is a label", want)

	if removed, err := node.RemoveFeatures(func() (*os.Root, error) { return os.OpenRoot(b.dir) }); err != nil || !removed {
		t.Fatal(removed, err)
	}
	labelled("the labels go with the file", map[string]string{})
}

// linesOf reads the labels in the agent's file.
func linesOf(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found && !strings.HasPrefix(line, "#") {
			all[key] = value
		}
	}
	return all
}

// runMaster runs NFD's master, as it comes, until the test ends.
func runMaster(t *testing.T, program, kubeconfig string) {
	t.Helper()
	log := new(logged)
	cmd := exec.Command(program, "-kubeconfig="+kubeconfig, "-port=0")
	cmd.Env = []string{"NODE_NAME=n", "KUBERNETES_NAMESPACE=default"}
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := hosttest.StartTethered(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err == nil {
			t.Error("NFD's master ended by itself")
		}
		if t.Failed() {
			t.Log(log)
		}
	})
}

// keep lets the agent write its file once, anew.
func keep(t *testing.T, dir string, use node.FeatureUse, look node.Look) {
	t.Helper()
	path := filepath.Join(dir, node.FeatureFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	file := node.NewFeatureFile(func() (*os.Root, error) { return os.OpenRoot(dir) }, use, hosttest.Time, slog.New(slog.DiscardHandler))
	file.Observe(look)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- file.Run(ctx, func() {}) }()
	within(t, "the file is there", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
