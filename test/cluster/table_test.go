package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/controller"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// table is what kubectl get prints of a kind: the API server makes it. Columns
// that only -o wide shows are in brackets; the age of what is minutes old is AGE.
func table(t *testing.T, clients *kubernetes.Clientset, resource string) string {
	t.Helper()
	var made metav1.Table
	err := clients.CoreV1().RESTClient().Get().AbsPath("/apis/virtnode.io/v1alpha1/"+resource).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Into(&made)
	if err != nil {
		t.Fatal(err)
	}
	var lines, cells []string
	for _, column := range made.ColumnDefinitions {
		name := column.Name
		if column.Priority > 0 {
			name = "[" + name + "]"
		}
		cells = append(cells, name)
	}
	lines = append(lines, strings.Join(cells, " | "))
	for i := range made.Rows {
		cells = nil
		for j, cell := range made.Rows[i].Cells {
			text := fmt.Sprint(cell)
			if cell == nil {
				text = ""
			}
			if age, err := time.ParseDuration(text); err == nil && age < 10*time.Minute && made.ColumnDefinitions[j].Name == "Age" {
				text = "AGE"
			}
			cells = append(cells, text)
		}
		lines = append(lines, strings.Join(cells, " | "))
	}
	return strings.Join(lines, "\n") + "\n"
}

// prints waits until kubectl get would print this.
func prints(t *testing.T, clients *kubernetes.Clientset, resource, want string) {
	t.Helper()
	var got string
	tick, deadline := time.NewTicker(100*time.Millisecond), time.NewTimer(time.Minute)
	defer tick.Stop()
	defer deadline.Stop()
	for got = table(t, clients, resource); got != want; got = table(t, clients, resource) {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal(cmp.Diff(want, got))
		}
	}
}

// runController runs the controller until the test ends.
func runController(t *testing.T, config *rest.Config) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- controller.Run(ctx, controller.Options{Config: config, Namespace: agentNamespace, Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller: %v", err)
		}
	})
}

// TestWhatKubectlGetPrints has three nodes, one of which cannot run VMs, and one
// without an agent.
func TestWhatKubectlGetPrints(t *testing.T) {
	config := startOwn(t).Config()
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	installAgents(t, config)
	runController(t, config)
	clients, objects := kubernetes.NewForConfigOrDie(config), newObjects(t, config)
	for _, policy := range []*v1alpha1.HostNetwork{
		{ObjectMeta: metav1.ObjectMeta{Name: "idle"}, Spec: v1alpha1.HostNetworkSpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "none"}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "storage"}, Spec: v1alpha1.HostNetworkSpec{Disruption: v1alpha1.DisruptionAllow}},
	} {
		policy.Spec.Interfaces = []v1alpha1.Interface{{Name: "stor0", Match: &v1alpha1.Match{Driver: "igb"}}}
		if err := objects.Create(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
	}
	_, bad := machines(t)
	good := kvmcheck.NewReport(hosttest.Replay(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz")), kvmcheck.Profile{}, "v1.2.3", hosttest.Time())
	for _, node := range []struct {
		name, state string
		report      kvmcheck.Report
	}{{"table-a", v1alpha1.NetworkConverged, good}, {"table-b", v1alpha1.NetworkRefused, bad}} {
		p, way := newPublished(t, config, node.name)
		agent := newAgent(t, way, p.name)
		agent.look(t, 0, node.report)
		agent.ObserveNetworks([]v1alpha1.NetworkReport{{Policy: "storage", ObservedGeneration: 1, State: node.state, Message: "a guard forbids it"}}, true)
		for range 3 {
			agent.look(t, 31*time.Second, node.report)
		}
		agent.settled(t)
	}
	prints(t, clients, "nodevirtualizations", `Name | Ready | Reasons | Network | VFs | [Agent] | Age
table-a | Ready |  | Converged | 10 | v1.2.3 | AGE
table-b | NotReady | ModuleNotLoaded,DeviceMissing | Refused |  | v1.2.3 | AGE
`)
	prints(t, clients, "hostnetworks", `Name | Ready | Reason | Nodes | Converged | Waiting | Failed | [Drifted] | [Disruption] | Age
idle | True | NoNodes |  |  |  |  |  |  | AGE
storage | False | Refused | 3 | 1 | 1 | 1 | 0 | Allow | AGE
`)
}
