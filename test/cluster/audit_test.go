package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// audited is what the API server has written about requests (audit.k8s.io/v1):
// who did what to what, with which answer, and what of it is on record.
func audited(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var event struct {
			Stage, Verb    string
			User           struct{ Username string }
			ObjectRef      struct{ Resource, Name, Subresource string }
			ResponseStatus struct{ Code int }
			RequestObject  json.RawMessage
			ResponseObject json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		of := event.ObjectRef
		said := fmt.Sprintf("%s %s %s", event.User.Username, event.Verb, strings.TrimSuffix(of.Resource+"/"+of.Subresource, "/"))
		if of.Resource != "events" { // whose names are random
			said += " " + of.Name
		}
		said += fmt.Sprintf(" %d %s", event.ResponseStatus.Code, event.Stage)
		if event.RequestObject != nil {
			said += " request"
		}
		if event.ResponseObject != nil {
			said += " response"
		}
		lines = append(lines, said)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// TestTheAuditPolicyRecordsWhatItSays runs an API server with the sample of an
// audit policy, and has people and agents do what is to be on record, and what
// is not.
func TestTheAuditPolicyRecordsWhatItSays(t *testing.T) {
	policy, err := filepath.Abs(filepath.Join("..", "..", "deploy", "samples", "audit-policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "audit.log")
	config := startOwn(t, "audit-policy-file="+policy, "audit-log-path="+file, "audit-log-mode=blocking-strict").Config()
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	installAgents(t, config)
	clients, objects := kubernetes.NewForConfigOrDie(config), newObjects(t, config)

	// A person: what the network shall be, and something else.
	network := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: "storage"}}
	network.Spec.Interfaces = []v1alpha1.Interface{{Name: "stor0", Match: &v1alpha1.Match{Name: "nic0"}}}
	other := &v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: "somebody"}}
	delegator := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "agents-review"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:auth-delegator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "nodeagent", Namespace: agentNamespace}},
	}
	for _, object := range []client.Object{network, other, delegator} {
		if err := objects.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	network.Spec.Interfaces[0].MTU = 9000
	if err := objects.Update(t.Context(), network); err != nil {
		t.Fatal(err)
	}
	network.Status.Turns = []v1alpha1.Turn{{Node: "audit-a", Plan: "4be7a91c02de", Generation: 2}}
	if err := objects.Status().Update(t.Context(), network); err != nil {
		t.Fatal(err)
	}
	if err := objects.Delete(t.Context(), network); err != nil {
		t.Fatal(err)
	}

	// An agent: its own work, who may read its pages, and what it may not.
	p, way := newPublished(t, config, "audit-a")
	makeNode(t, clients, "audit-b")
	good, bad := machines(t)
	agent := newAgent(t, way, p.name)
	for i, report := range []kvmcheck.Report{good, bad, bad, bad} {
		agent.look(t, time.Duration(i)*31*time.Second, report)
	}
	within(t, "an event tells of the change", func() bool { return p.events()["Warning ModuleNotLoaded"] == 1 })
	agent.settled(t)
	token := kubernetes.NewForConfigOrDie(way)
	scraper := account(t, clients, "audit-scraper", "system:monitoring")
	within(t, "the agent lets a scraper in", func() bool { return status(t, guardedServer(t, way).URL+"/metrics", scraper) == http.StatusOK })
	for path, refusedWith := range map[string]string{
		"/api/v1/nodes/audit-b": "writes to its own Node only", "/api/v1/namespaces/default/secrets/any": "cannot patch resource",
	} {
		if err := patch(t, token, attempt{path: path, method: mergePatch, body: `{"metadata":{"labels":{"virtnode.io/kvm":"true"}}}`}); err == nil || !strings.Contains(err.Error(), refusedWith) {
			t.Fatalf("%s: %v", path, err)
		}
	}
	agent.stop()

	const person, itself = "admin", "system:serviceaccount:" + agentNamespace + ":nodeagent"
	want := []string{
		person + " create hostnetworks storage 201 ResponseComplete request response",
		person + " delete hostnetworks storage 200 ResponseComplete request response",
		person + " update hostnetworks storage 200 ResponseComplete request response",
		person + " update hostnetworks/status storage 200 ResponseComplete request response",
		itself + " create events 201 ResponseComplete request",
		itself + " patch nodes audit-a 200 ResponseComplete request",
		itself + " patch nodes audit-b 403 ResponseComplete request",
		itself + " patch nodes/status audit-a 200 ResponseComplete request",
		itself + " patch nodevirtualizations audit-a 201 ResponseComplete request",
		itself + " patch nodevirtualizations/status audit-a 200 ResponseComplete request",
		itself + " patch secrets any 403 ResponseComplete", // nobody reads what may not be asked for
	}
	// The canary tells when admission is in force.
	got := slices.DeleteFunc(audited(t, file), func(line string) bool { return strings.Contains(line, " canary ") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), scraper) || strings.Contains(string(text), way.BearerToken) {
		t.Errorf("a token is on record, or nothing is: %v", err)
	}
}
