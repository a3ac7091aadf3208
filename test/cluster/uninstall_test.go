package cluster_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestUninstallLeavesNothing runs the program against a cluster of its own, in
// which one agent has gone without a word, and one node has lost its owners.
func TestUninstallLeavesNothing(t *testing.T) {
	own := startOwn(t)
	config := own.Config()
	clients := kubernetes.NewForConfigOrDie(config)
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	good, _ := machines(t)
	all := make(map[string]*published)
	for _, name := range []string{"one", "two", "three"} {
		makeNode(t, clients, name)
		all[name] = &published{t, clients, newObjects(t, config), name}
		agent := newAgent(t, config, name)
		agent.look(t, 0, good)
		agent.settled(t)
		agent.stop()
	}
	others := applycorev1.Node("two").WithLabels(map[string]string{"virtnode.io/of-somebody": "true", "virtnode.io/kvm": "true"})
	if _, err := clients.CoreV1().Nodes().Apply(t.Context(), others, metav1.ApplyOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	all["three"].edit(`{"metadata":{"managedFields":[{}]}}`)

	binary := hosttest.BuildAgent(t)
	uninstall := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(binary, append([]string{"uninstall", "--kubeconfig", own.Kubeconfig()}, args...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, os.Environ()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, errs.String())
		}
		return out.String()
	}
	kept := all["two"].ours()
	if out := uninstall("--node", "one"); !strings.Contains(out, "node one: label virtnode.io/kvm\n") || !strings.Contains(out, "nodevirtualization one\n") || strings.Contains(out, "two") {
		t.Errorf("of one node:\n%s", out)
	}
	if diff := cmp.Diff(kept, all["two"].ours()); diff != "" {
		t.Errorf("of another node: %s", diff)
	}
	uninstall()
	if out := uninstall(); out != "" {
		t.Errorf("the second time it removed\n%s", out)
	}
	for name, p := range all {
		want := map[string]string{}
		if name == "two" {
			want = map[string]string{"virtnode.io/of-somebody": "true", "virtnode.io/kvm": "true"}
		}
		if diff := cmp.Diff(want, p.ours()); diff != "" || p.condition().Status != "" {
			t.Errorf("%s: condition %v, labels %s", name, p.condition(), diff)
		}
		found := p.node()
		if found.Labels["example.org/rack"] != "7" || len(found.Status.Conditions) != 1 {
			t.Errorf("%s lost what is not the agent's: %v, %v", name, slices.Collect(maps.Keys(found.Labels)), found.Status.Conditions)
		}
		for _, entry := range found.ManagedFields {
			if entry.Manager == node.Manager {
				t.Errorf("%s: still owns %s", name, entry.FieldsV1)
			}
		}
	}
}
