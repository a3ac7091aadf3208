package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// agentNamespace is that of the agents' account in deploy.
const agentNamespace = "virtnode-system"

// agents installs the agents' account, rights and admission policies in the
// shared control plane, once.
var agents sync.Once

// withAgents returns the connection of an administrator to a cluster that
// agents may work in.
func withAgents(t *testing.T) *rest.Config {
	t.Helper()
	config := withKinds(t)
	agents.Do(func() { installAgents(t, config) })
	return config
}

// installAgents applies what is deployed beside the DaemonSet, and waits until
// the policies are in force.
func installAgents(t *testing.T, config *rest.Config) {
	t.Helper()
	objects, clients := newObjects(t, config), kubernetes.NewForConfigOrDie(config)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentNamespace}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nodeagent", Namespace: agentNamespace}}
	for _, object := range []client.Object{namespace, account} {
		if err := objects.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"rbac.yaml", "admission.yaml"} {
		applyFile(t, objects, filepath.Join("..", "..", "deploy", "daemonset", "base", file))
	}
	makeNode(t, clients, "canary")
	// Without a node claim nothing may be written.
	stranger := kubernetes.NewForConfigOrDie(as(config, agentToken(t, clients, "")))
	within(t, "the policies are in force", func() bool {
		_, err := stranger.CoreV1().Nodes().Patch(t.Context(), "canary", "application/merge-patch+json", []byte(`{"metadata":{"labels":{"virtnode.io/kvm":"true"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "nodeagent-own-node")
	})
}

// applyFile applies every document of a file.
func applyFile(t *testing.T, objects client.Client, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		var object unstructured.Unstructured
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := objects.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(&object), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			t.Fatalf("%s: %s %s: %v", name, object.GetKind(), object.GetName(), err)
		}
	}
}

// startOwn starts a cluster that no other test has, its API server with flags.
func startOwn(t *testing.T, flags ...string) *cluster.ControlPlane {
	t.Helper()
	plane.Config(t) // ends the test when the tier cannot run
	own, err := cluster.Start(flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	return own
}

// makeNode makes a Node as a kubelet does, with a label and a condition of its own.
func makeNode(t testing.TB, clients kubernetes.Interface, name string) {
	t.Helper()
	nodes, options := clients.CoreV1().Nodes(), metav1.CreateOptions{FieldManager: "kubelet"}
	made := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"example.org/rack": "7"}}}
	if _, err := nodes.Create(t.Context(), made, options); err != nil {
		t.Fatal(err)
	}
	// A patch, since an agent may have written to the Node already.
	const ready = `{"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}`
	if _, err := nodes.Patch(t.Context(), name, types.StrategicMergePatchType, []byte(ready), metav1.PatchOptions{FieldManager: "kubelet"}, "status"); err != nil {
		t.Fatal(err)
	}
}

// agentToken is what the agent of a node has: a token that is bound to its pod
// there. Without a node it is bound to nothing.
func agentToken(t testing.TB, clients kubernetes.Interface, nodeName string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if nodeName != "" {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "nodeagent-" + nodeName, Namespace: agentNamespace},
			Spec: corev1.PodSpec{
				NodeName: nodeName, ServiceAccountName: "nodeagent",
				Containers: []corev1.Container{{Name: "nodeagent", Image: "nodeagent"}},
			},
		}
		made, err := clients.CoreV1().Pods(agentNamespace).Create(t.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: made.Name, UID: made.UID}
	}
	answer, err := clients.CoreV1().ServiceAccounts(agentNamespace).CreateToken(t.Context(), "nodeagent", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// within waits for a condition, for a minute.
func within(t testing.TB, what string, holds func() bool) {
	t.Helper()
	withinTime(t, time.Minute, what, holds)
}

// withinTime waits for a condition.
func withinTime(t testing.TB, most time.Duration, what string, holds func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(20*time.Millisecond), time.NewTimer(most)
	defer tick.Stop()
	defer deadline.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(what, ": the test has ended")
		case <-deadline.C:
			t.Fatal("it never came to this: ", what)
		}
	}
}

// watching is the method of a watch among those of other requests.
const watching = "WATCH"

// wire counts requests by method and path, and keeps what they wrote. A watch is
// no request of its own here: the server ends it when it likes. Nor is a write that
// the server refuses because it came out of an old cache.
type wire struct {
	next http.RoundTripper

	mu       sync.Mutex
	requests map[string]int // "PATCH /api/v1/nodes/a"
	written  []string       // what writes that succeeded said
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Method == http.MethodPatch {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	request := r.Method + " " + r.URL.Path
	if r.URL.Query().Get("watch") != "" {
		request = watching + " " + r.URL.Path
	}
	// Before it is sent: who sees what it did must find it counted.
	w.mu.Lock()
	w.requests[request]++
	w.mu.Unlock()
	response, err := w.next.RoundTrip(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && response.StatusCode == http.StatusConflict {
		w.requests[request]--
	}
	if body != nil && err == nil && response.StatusCode < http.StatusMultipleChoices {
		w.written = append(w.written, string(body))
	}
	return response, err
}

// wrote returns what was written, in order.
func (w *wire) wrote() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.written)
}

// count is how many requests of some methods there were.
func (w *wire) count(methods ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := 0
	for request, count := range w.requests {
		for _, method := range methods {
			if strings.HasPrefix(request, method+" ") {
				all += count
			}
		}
	}
	return all
}

func (w *wire) writes() int {
	return w.count(http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodDelete)
}

// logged is a log that tests read.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// simulated is an agent without a host: it is told what it finds, at times of
// its own.
type simulated struct {
	*node.Publisher
	wire *wire
	log  *logged
	stop func()

	mu  sync.Mutex
	now time.Time
}

func (s *simulated) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// newAgent starts the agent of a node over a connection. It ends with the test.
func newAgent(t *testing.T, config *rest.Config, name string) *simulated {
	t.Helper()
	s := &simulated{wire: &wire{requests: make(map[string]int)}, log: new(logged), now: hosttest.Time()}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		s.wire.next = next
		return s.wire
	})
	s.Publisher = node.NewPublisher(node.Options{
		Config: func() (*rest.Config, error) { return config, nil },
		Node:   name, Random: func() float64 { return 0 }, Now: s.clock, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	s.stop = s.run(t)
	return s
}

// run runs the publisher until the test ends.
func (s *simulated) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func() {}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.log)
		}
	})
	t.Cleanup(stop)
	return stop
}

// look tells the agent what it finds some time later, and waits until it has
// dealt with it.
func (s *simulated) look(t testing.TB, after time.Duration, report kvmcheck.Report) {
	t.Helper()
	s.mu.Lock()
	s.now = s.now.Add(after)
	report.Time = s.now
	s.mu.Unlock()
	rounds := s.State().Rounds
	s.Observe(node.Look{Report: report})
	within(t, "the agent has looked", func() bool { return s.State().Rounds > rounds })
}

// settled waits until the agent has brought about what it wants.
func (s *simulated) settled(t testing.TB) {
	t.Helper()
	within(t, "the agent has published", func() bool { return s.State().Up })
}
