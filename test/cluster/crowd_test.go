package cluster_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// Each node is in one of the racks, and is selected by all policies for
// everybody and by the one of its rack. Each policy has two attachments.
const (
	crowdSize   = 1000
	everybodys  = 10
	racks       = 20
	perRack     = crowdSize / racks
	policyCount = everybodys + racks
	definitions = 2 * policyCount
)

// crowd is the nodes of a cluster as their agents have left them, and the
// controller as it is shipped, with the account that it is deployed with. What
// it asks of the API server is counted on the way.
type crowd struct {
	t          *testing.T
	config     *rest.Config // an administrator's
	clients    *kubernetes.Clientset
	objects    client.Client
	program    string
	kubeconfig string // the controller's
	wire       *wire
	pid        int
	log        *logged
	stop       func()
	reports    [crowdSize][]v1alpha1.NetworkReport
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	own := startOwn(t)
	c := &crowd{t: t, config: own.Config(), program: filepath.Join(t.TempDir(), "nodeagent-controller")}
	c.config.QPS = -1 // this is the test's
	c.clients, c.objects = kubernetes.NewForConfigOrDie(c.config), newObjects(t, c.config)
	installCRDs(t, c.config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"), filepath.Join(multusModule(t), "artifacts", "networks-crd.yaml"))
	for _, name := range []string{agentNamespace, "vms"} {
		if err := c.objects.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := hosttest.Build(c.program, "./cmd/nodeagent-controller"); err != nil {
		t.Fatal(err)
	}
	c.open()
	return c
}

// multusModule is the folder of the module that has Multus' CRD.
func multusModule(t *testing.T) string {
	t.Helper()
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/k8snetworkplumbingwg/network-attachment-definition-client")
	list.Dir = "multus"
	out, err := list.CombinedOutput()
	if err == nil && len(strings.TrimSpace(string(out))) == 0 {
		err = fmt.Errorf("the module with Multus' CRD is not in the module cache: make prepare")
	}
	hosttest.Need(t, hosttest.Cluster, err)
	return strings.TrimSpace(string(out))
}

// open makes the controller's account, and the way on which it is counted.
func (c *crowd) open() {
	c.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nodeagent-controller", Namespace: agentNamespace}}
	if err := c.objects.Create(c.t.Context(), account); err != nil {
		c.t.Fatal(err)
	}
	applyFile(c.t, c.objects, filepath.Join("..", "..", "deploy", "daemonset", "base", "rbac-controller.yaml"))
	request, err := c.clients.CoreV1().ServiceAccounts(agentNamespace).CreateToken(c.t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	// The token is added behind the proxy: client-go sends none without TLS.
	transport, err := rest.TransportFor(as(c.config, request.Status.Token))
	if err != nil {
		c.t.Fatal(err)
	}
	to, err := url.Parse(c.config.Host)
	if err != nil {
		c.t.Fatal(err)
	}
	c.wire = &wire{next: transport, requests: make(map[string]int)}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     c.wire,
		FlushInterval: -1,                         // a watch is told at once
		ErrorLog:      log.New(io.Discard, "", 0), // a program that ends cuts its watches
	})
	c.t.Cleanup(proxy.Close)
	c.kubeconfig = filepath.Join(c.t.TempDir(), "kubeconfig")
	err = clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: proxy.URL}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c"}},
		CurrentContext: "c",
	}, c.kubeconfig)
	if err != nil {
		c.t.Fatal(err)
	}
}

// start starts the controller.
func (c *crowd) start() {
	c.t.Helper()
	log := new(logged)
	c.log = log
	cmd := exec.Command(c.program, "--kubeconfig", c.kubeconfig, "--health.listen-address", "")
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := hosttest.StartTethered(cmd, syscall.SIGTERM)
	if err != nil {
		c.t.Fatal(err)
	}
	c.pid = cmd.Process.Pid
	c.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			c.t.Errorf("the controller: %v", err)
		}
		if c.t.Failed() {
			c.t.Log(log)
		}
	})
	c.t.Cleanup(c.stop)
}

func policyName(p int) string {
	if p < everybodys {
		return fmt.Sprintf("all-%d", p)
	}
	return fmt.Sprintf("rack-%02d", p-everybodys)
}

func rackName(i int) string { return fmt.Sprintf("rack-%02d", i%racks) }

// fill makes the policies, the nodes, and what the agents there have written.
func (c *crowd) fill() {
	c.t.Helper()
	for p := range policyCount {
		name := policyName(p)
		policy := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.HostNetworkSpec{
			Interfaces: []v1alpha1.Interface{{Name: name, Match: &v1alpha1.Match{PCIAddress: fmt.Sprintf("0000:%02x:00.0", p+1)}, MTU: 9000}},
		}}
		if p >= everybodys {
			policy.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": name}}
			policy.Spec.Disruption, policy.Spec.MaxUnavailable = v1alpha1.DisruptionAllow, new(intstr.FromString("10%"))
		}
		for _, suffix := range []string{"-a", "-b"} {
			policy.Spec.Attachments = append(policy.Spec.Attachments, v1alpha1.Attachment{Name: name + suffix, Namespace: "vms", Type: "macvlan", Parent: name})
		}
		if err := c.objects.Create(c.t.Context(), policy); err != nil {
			c.t.Fatal(err)
		}
	}
	good, _ := machines(c.t)
	status := v1alpha1.NodeVirtualizationStatus{Agent: "v1.2.3", Verdict: "Ready", FactsDigest: "0123456789ab"}
	for _, f := range good.Findings {
		status.Findings = append(status.Findings, v1alpha1.NodeFinding{Area: f.Area, Check: f.Check, Level: string(f.Level), Status: f.Status.String(), Reason: string(f.Reason), Message: f.Message, Remedy: f.Remedy})
	}
	c.each(func(i int) error {
		made := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nameOf(i), Labels: map[string]string{"rack": rackName(i), "kubernetes.io/hostname": nameOf(i), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}}
		if err := c.objects.Create(c.t.Context(), made, client.FieldOwner("kubelet")); err != nil {
			return err
		}
		object := &v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: made.Name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: made.Name, UID: made.UID}}}}
		if err := c.objects.Create(c.t.Context(), object, client.FieldOwner(node.Manager)); err != nil {
			return err
		}
		object.Status = status
		if err := c.objects.Status().Update(c.t.Context(), object, client.FieldOwner(node.Manager)); err != nil {
			return err
		}
		for p := range policyCount {
			if name := policyName(p); p < everybodys || name == rackName(i) {
				c.reports[i] = append(c.reports[i], v1alpha1.NetworkReport{Policy: name})
			}
		}
		for p := range c.reports[i] {
			c.reports[i][p] = reportOf(c.reports[i][p].Policy, 1, v1alpha1.NetworkConverged)
		}
		return c.write(i, map[string]any{"networks": c.reports[i]})
	})
}

// reportOf is what a node says of a policy.
func reportOf(policy string, generation int64, state string) v1alpha1.NetworkReport {
	report := v1alpha1.NetworkReport{Policy: policy, ObservedGeneration: generation, State: state, Interfaces: []v1alpha1.InterfaceReport{{Name: policy, Link: "enp1s0f0", Ready: state == v1alpha1.NetworkConverged}}}
	if state != v1alpha1.NetworkConverged {
		report.PlanHash, report.Steps = "4be7a91c02de", []string{"set MTU of enp1s0f0 from 1500 to 9000 (link-flap)"}
	}
	return report
}

// say lets the agent of a node write another report.
func (c *crowd) say(i int, policy string, generation int64, state string) error {
	at := slices.IndexFunc(c.reports[i], func(r v1alpha1.NetworkReport) bool { return r.Policy == policy })
	c.reports[i][at] = reportOf(policy, generation, state)
	return c.write(i, map[string]any{"networks": c.reports[i]})
}

func (c *crowd) write(i int, status map[string]any) error {
	return c.patch(&v1alpha1.NodeVirtualization{ObjectMeta: metav1.ObjectMeta{Name: nameOf(i)}}, map[string]any{"status": status}, true)
}

// patch changes an object, or its status.
func (c *crowd) patch(object client.Object, with map[string]any, status bool) error {
	body, err := json.Marshal(with)
	if err != nil {
		return err
	}
	patch := client.RawPatch(mergePatch, body)
	if status {
		return c.objects.Status().Patch(c.t.Context(), object, patch, client.FieldOwner(node.Manager))
	}
	return c.objects.Patch(c.t.Context(), object, patch)
}

// each does something for every node, for several at once.
func (c *crowd) each(do func(i int) error) {
	c.t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < crowdSize && !c.t.Failed(); i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					c.t.Error(nameOf(i), err)
				}
			}
		})
	}
	all.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// status waits until the status of a policy is as it shall be.
func (c *crowd) status(policy, what string, is func(v1alpha1.HostNetworkStatus) bool) {
	c.t.Helper()
	within(c.t, policy+": "+what, func() bool {
		var found v1alpha1.HostNetwork
		if err := c.objects.Get(c.t.Context(), client.ObjectKey{Name: policy}, &found); err != nil {
			c.t.Fatal(err)
		}
		ready := meta.FindStatusCondition(found.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.ObservedGeneration == found.Generation && is(found.Status)
	})
}

func converged(count int) func(v1alpha1.HostNetworkStatus) bool {
	return func(s v1alpha1.HostNetworkStatus) bool { return s.Nodes.Converged == count }
}

// requests counts what the controller has asked for, by kind of request; the
// lease, by which one of several leads, apart from the rest.
func (c *crowd) requests() (reads, writes, leases int, all map[string]int) {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	all = make(map[string]int)
	for request, count := range c.wire.requests {
		method, path, _ := strings.Cut(request, " ")
		switch {
		case strings.Contains(path, "/leases") || strings.HasSuffix(path, "/events"):
			leases += count
			continue
		case method == http.MethodGet:
			reads += count
		case method == watching: // neither
		default:
			writes += count
		}
		parts := strings.Split(strings.Trim(path, "/"), "/")
		for n, part := range parts {
			if part == "hostnetworks" || part == "nodevirtualizations" || part == "nodes" || part == "network-attachment-definitions" {
				kind := part
				if n+1 < len(parts) {
					kind += "/NAME" + strings.TrimPrefix(strings.Join(parts[n+1:], "/"), parts[n+1])
				}
				path = kind
			}
		}
		all[method+" "+path] += count
	}
	return reads, writes, leases, all
}

// spent is what the controller has needed while something was done.
type spent struct {
	reads, writes int
	cpu, took     time.Duration
	resident      int64
	of            map[string]int
}

// during measures the controller while do is done.
func (c *crowd) during(what string, do func()) spent {
	c.t.Helper()
	reads, writes, leases, before := c.requests()
	cpu, began := c.usage().CPU, time.Now()
	do()
	s := spent{took: time.Since(began), of: make(map[string]int)}
	var now map[string]int
	var moreLeases int
	s.reads, s.writes, moreLeases, now = c.requests()
	s.reads, s.writes = s.reads-reads, s.writes-writes
	usage := c.usage()
	s.cpu, s.resident = usage.CPU-cpu, usage.Resident
	for request, count := range now {
		if more := count - before[request]; more > 0 {
			s.of[request] = more
		}
	}
	c.t.Logf("%s, in %v: %d reads, %d writes, %v of a CPU, %d MiB; %d for the lease", what, s.took.Round(100*time.Millisecond), s.reads, s.writes, s.cpu.Round(time.Millisecond), s.resident>>20, moreLeases-leases)
	for _, request := range slices.Sorted(maps.Keys(s.of)) {
		c.t.Logf("    %s: %d", request, s.of[request])
	}
	return s
}

func (c *crowd) usage() exporter.Usage {
	c.t.Helper()
	usage, err := exporter.UsageOf(c.pid)
	if err != nil {
		c.t.Fatal(err)
	}
	return usage
}
