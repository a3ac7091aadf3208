package controller_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/controller"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/links"
)

// plane is shared by the tests that need an API server.
var plane cluster.Shared

func TestMain(m *testing.M) { os.Exit(plane.Run(m)) }

// patience is how long a test waits for what takes a second or two.
const patience = time.Minute

const namespace = "virtnode-system"

const crds = "../../deploy/daemonset/base/crds"

// bed is a cluster whose API server is real, and whose nodes are not.
type bed struct {
	t      *testing.T
	config *rest.Config
	client.Client
}

func newBed(t *testing.T, config *rest.Config) *bed {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	objects, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &bed{t: t, config: config, Client: objects}
}

// withKinds is the shared control plane with our kinds, and the controller.
func withKinds(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, plane.Config(t))
	b.install(crds)
	b.startController()
	return b
}

func (b *bed) install(paths ...string) {
	b.t.Helper()
	if _, err := envtest.InstallCRDs(b.config, envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true}); err != nil {
		b.t.Fatal(err)
	}
}

// installMultus makes Multus' own kind known, as its project defines it.
func (b *bed) installMultus() {
	b.t.Helper()
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/k8snetworkplumbingwg/network-attachment-definition-client")
	list.Dir = "../../test/cluster/multus"
	out, err := list.CombinedOutput()
	dir := strings.TrimSpace(string(out))
	if err == nil && dir == "" {
		err = errors.New("the module with Multus' CRD is not in the module cache: make prepare")
	}
	hosttest.Need(b.t, hosttest.Cluster, err)
	b.install(filepath.Join(dir, "artifacts", "networks-crd.yaml"))
}

// background runs something until the test, or stop, ends it.
func (b *bed) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			b.t.Errorf("in the background: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	b.t.Cleanup(stop)
	return stop
}

// startController starts the controller, with the rights that its manifest
// gives it.
func (b *bed) startController() {
	b.t.Helper()
	way := b.account("nodeagent-controller", "../../deploy/daemonset/base/rbac-controller.yaml")
	b.background(func(ctx context.Context) error {
		return controller.Run(ctx, controller.Options{Config: way, Namespace: namespace, Log: slog.New(slog.DiscardHandler)})
	})
}

// account makes the account of a manifest, and returns its way to the cluster.
func (b *bed) account(name, manifest string) *rest.Config {
	b.t.Helper()
	text, err := os.ReadFile(manifest)
	if err != nil {
		b.t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, object := range []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, account} {
		if err := b.Create(b.t.Context(), object); client.IgnoreAlreadyExists(err) != nil {
			b.t.Fatal(err)
		}
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			b.t.Fatal(err)
		}
		if err := b.Apply(b.t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			b.t.Fatal(err)
		}
	}
	request := &authenticationv1.TokenRequest{}
	if err := b.SubResource("token").Create(b.t.Context(), account, request); err != nil {
		b.t.Fatal(err)
	}
	way := rest.AnonymousClientConfig(b.config)
	way.BearerToken = request.Status.Token
	return way
}

// eventually waits until the cluster is as a test wants it.
func (b *bed) eventually(what string, is func() (bool, string)) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for {
		ok, last := is()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("%s: not within %v; last: %s", what, patience, last)
		case <-time.After(50 * time.Millisecond): // the API is asked again
		}
	}
}

func (b *bed) policy(name string) (v1alpha1.HostNetwork, error) {
	var policy v1alpha1.HostNetwork
	err := b.Get(b.t.Context(), client.ObjectKey{Name: name}, &policy)
	return policy, err
}

// apply makes a HostNetwork, which goes with the test.
func (b *bed) apply(name, spec string) {
	b.t.Helper()
	policy := &v1alpha1.HostNetwork{}
	if err := yaml.UnmarshalStrict([]byte(spec), &policy.Spec); err != nil {
		b.t.Fatal(err)
	}
	policy.Name = name
	if err := b.Create(b.t.Context(), policy); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		left := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}
		ctx := context.Background()
		_ = b.Delete(ctx, left)
		_ = b.Patch(ctx, left, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
	})
}

// change changes a HostNetwork's spec.
func (b *bed) change(name string, with func(*v1alpha1.HostNetworkSpec)) {
	b.t.Helper()
	b.eventually("change of "+name, func() (bool, string) {
		policy, err := b.policy(name)
		if err == nil {
			with(&policy.Spec)
			err = b.Update(b.t.Context(), &policy)
		}
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
}

// ready waits for the condition Ready with a reason, and returns the policy.
func (b *bed) ready(name, reason string) v1alpha1.HostNetwork {
	b.t.Helper()
	var policy v1alpha1.HostNetwork
	b.eventually(name+" is "+reason, func() (bool, string) {
		var err error
		if policy, err = b.policy(name); err != nil {
			return false, err.Error()
		}
		for _, c := range policy.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Reason == reason && c.ObservedGeneration == policy.Generation {
				return true, ""
			}
		}
		return false, string(mustJSON(policy.Status))
	})
	return policy
}

func mustJSON(v any) []byte {
	text, err := yaml.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// kernel is the fake one, which several goroutines may use.
type kernel struct {
	mu     sync.Mutex
	links  links.Kernel
	before func(op hostnet.Op) // of each write
}

func (k *kernel) Dump(ctx context.Context, reach []netip.Addr) (hostnet.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.links.Dump(ctx, reach)
}

func (k *kernel) Do(ctx context.Context, op hostnet.Op) error {
	if k.before != nil {
		k.before(op)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.links.Do(ctx, op)
}

type answering struct{}

func (answering) Reach(context.Context, string, netip.Addr) error { return nil }

// fakeNode is a node with one network card, and an agent that is real but for
// what it changes.
type fakeNode struct {
	*bed
	name   string
	kernel *kernel
	way    *rest.Config
	log    io.Writer
	dir    string
	stop   func()
}

// node makes a node. Its agent is started by start.
func (b *bed) node(name string, labels map[string]string) *fakeNode {
	b.t.Helper()
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if err := b.Create(b.t.Context(), object); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = b.Delete(context.Background(), object)
		_ = b.Delete(context.Background(), &v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: name}})
	})
	way := b.account("nodeagent", "../../deploy/daemonset/base/rbac.yaml")
	n := &fakeNode{bed: b, name: name, kernel: &kernel{}, way: way, log: io.Discard, dir: b.t.TempDir()}
	n.kernel.links.AddCard(hostnet.Link{Name: "nic0", Up: true, PCI: &hostnet.PCI{Address: "0000:01:00.0"}})
	for file, text := range map[string]string{
		"proc/sys/kernel/random/boot_id": "one\n", "sys/bus/pci/devices/0000:01:00.0/vendor": "0x8086\n", "sys/bus/pci/devices/0000:01:00.0/device": "0x10c9\n",
	} {
		file = filepath.Join(n.dir, "root", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			b.t.Fatal(err)
		}
	}
	return n
}

// start starts the node's agent.
func (n *fakeNode) start() *fakeNode {
	n.t.Helper()
	root, err := hostfs.Open(filepath.Join(n.dir, "root"))
	if err != nil {
		n.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	policies := node.NewHostNetworks(func() (*rest.Config, error) { return n.way, nil }, n.name, n.publish, log)
	watch := &network.Watch{
		Network: &network.Network{
			Dir: filepath.Join(n.dir, "state"), Links: &hostnet.Host{Kernel: n.kernel, Root: root}, VFs: sriov.Host{Root: root, Sysfs: root},
			Neighbours: answering{}, Now: time.Now, Log: log,
		},
		Policies: policies.Policies, Permit: policies.Permit, Wake: policies.Wake(), Looked: policies.Looked, Interval: time.Second,
	}
	stopPolicies := n.background(func(ctx context.Context) error { policies.Run(ctx); return nil })
	stopWatch := n.background(func(ctx context.Context) error { return watch.Run(ctx, func() {}) })
	n.stop = func() { stopWatch(); stopPolicies() }
	return n
}

// publish writes reports as the agent does: by server-side apply, to the
// status of the node's own object.
func (n *fakeNode) publish(reports []v1alpha1.NetworkReport) {
	if reports == nil {
		return
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.NodeVirtualizationStatus{Agent: "test", Networks: reports})
	if err != nil {
		n.t.Error(err)
		return
	}
	object := &unstructured.Unstructured{Object: map[string]any{}}
	object.SetAPIVersion(v1alpha1.APIVersion)
	object.SetKind(v1alpha1.KindNodeVirtualization)
	object.SetName(n.name)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if n.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("nodeagent")) != nil {
		return // the next look reports again
	}
	object.SetManagedFields(nil)
	object.SetResourceVersion("")
	object.Object["status"] = status
	if err := n.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("nodeagent"), client.ForceOwnership); err != nil {
		n.t.Log(err)
	}
}

func (n *fakeNode) mtu() int {
	n.t.Helper()
	state, err := n.kernel.Dump(n.t.Context(), nil)
	if err != nil {
		n.t.Fatal(err)
	}
	link, _ := state.Link("nic0")
	return link.MTU
}

// has waits until the node's card has an MTU.
func (n *fakeNode) has(mtu int) {
	n.t.Helper()
	n.eventually(n.name+" has the MTU", func() (bool, string) { return n.mtu() == mtu, "" })
}

// reports waits for a state of a policy on the node; "" is none at all.
func (n *fakeNode) reports(policy, state string) v1alpha1.NetworkReport {
	n.t.Helper()
	var report v1alpha1.NetworkReport
	n.eventually(n.name+" reports "+policy+" "+state, func() (bool, string) {
		var object v1alpha1.NodeVirtualization
		if err := n.Get(n.t.Context(), client.ObjectKey{Name: n.name}, &object); err != nil {
			return false, err.Error()
		}
		report = v1alpha1.NetworkReport{}
		for _, r := range object.Status.Networks {
			if r.Policy == policy {
				report = r
			}
		}
		return report.State == state, string(mustJSON(object.Status.Networks))
	})
	return report
}

func (n *fakeNode) label(rack any) {
	n.t.Helper()
	patch := mustPatch(map[string]any{"metadata": map[string]any{"labels": map[string]any{"rack": rack}}})
	if err := n.Patch(n.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}, patch); err != nil {
		n.t.Fatal(err)
	}
}

func mustPatch(change map[string]any) client.Patch {
	text, err := yaml.YAMLToJSON(mustJSON(change))
	if err != nil {
		panic(err)
	}
	return client.RawPatch("application/merge-patch+json", text)
}
