package cluster_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// daemon is the agent as it is shipped, with a kubeconfig of its own.
type daemon struct {
	cmd        *exec.Cmd
	log        *logged
	ended      <-chan error
	url        string
	dir        string
	settings   string
	kubeconfig string
	logged     map[string]int // by reason: how often a failure was logged when it was suffered last
}

// startDaemon starts the agent of a node with what its kubeconfig says, and with
// labels of the user's own, a list in YAML.
func startDaemon(t *testing.T, nodeName, kubeconfig, labels string) *daemon {
	t.Helper()
	dir, agent := t.TempDir(), hosttest.BuildAgent(t)
	address, err := hosttest.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{
		log: new(logged), url: "http://" + address, dir: dir, settings: filepath.Join(dir, "nodeagent.yaml"), kubeconfig: filepath.Join(dir, "kubeconfig"),
		logged: make(map[string]int),
	}
	d.write(t, kubeconfig)
	d.configure(t, labels)
	d.cmd = exec.Command(agent, "run", "--web.listen-address", address, "--config", d.settings)
	d.cmd.Env, d.cmd.Stderr = append(os.Environ(), "NODE_NAME="+nodeName), d.log
	if d.ended, err = hosttest.StartTethered(d.cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.log)
		}
		_ = d.cmd.Process.Kill()
	})
	return d
}

// write replaces the kubeconfig.
func (d *daemon) write(t *testing.T, kubeconfig string) {
	t.Helper()
	replace(t, d.kubeconfig, kubeconfig)
}

// configure replaces the configuration by one with labels of the user's own,
// which begin in its line 4.
func (d *daemon) configure(t *testing.T, labels string) {
	t.Helper()
	replace(t, d.settings, fmt.Sprintf("log: {format: text}\nkubernetes:\n  kubeconfig: %s\n  labels: %s\nnetwork: {stateDirectory: %s}\nreadiness: {interval: 5s}\n",
		d.kubeconfig, labels, filepath.Join(d.dir, "state")))
}

// replace replaces a file at once.
func replace(t *testing.T, file, text string) {
	t.Helper()
	next := file + ".next"
	if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, file)); err != nil {
		t.Fatal(err)
	}
}

// needRoot ends the test of a program that would follow HostNetworks and may not.
func needRoot(t *testing.T) {
	t.Helper()
	var missing error
	if os.Geteuid() != 0 {
		missing = errors.New("who follows HostNetworks must be root")
	}
	hosttest.Need(t, hosttest.Cluster, missing)
}

// kubeconfigOf is a kubeconfig with a token in it.
func kubeconfigOf(way *rest.Config) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], users: [{name: u, user: {token: %s}}],\n"+
		"clusters: [{name: c, cluster: {server: '%s', certificate-authority-data: %s}}]}", way.BearerToken, way.Host, base64.StdEncoding.EncodeToString(way.CAData))
}

// page returns a page of the agent's, or nothing.
func (d *daemon) page(t *testing.T, path string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return ""
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// has waits for a line of the metrics.
func (d *daemon) has(t *testing.T, line string) {
	t.Helper()
	within(t, line, func() bool { return strings.Contains(d.page(t, "/metrics"), "\n"+line+"\n") })
}

// The parts of the agent that speak with the cluster.
const publishing, networking = "virtnode_node_publish", "virtnode_net_cluster"

// suffers waits until a failure is met again and again by some parts, and said
// with its remedy; the agent's other work goes on.
func (d *daemon) suffers(t *testing.T, reason, fix string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		within(t, part+" meets "+reason+" again and again", func() bool {
			_, after, _ := strings.Cut(d.page(t, "/metrics"), part+`_errors_total{reason="`+reason+`"} `)
			count, _, _ := strings.Cut(after, "\n")
			return len(count) > 1 || count > "2"
		})
		d.has(t, part+"_up 0")
	}
	said := d.log.count("reason=" + reason)
	if times := said - d.logged[reason]; times < len(parts) || times > 4*len(parts) || d.log.count(fix) < said {
		t.Errorf("%s is logged %d times", reason, times)
	}
	d.logged[reason] = said
	for _, path := range []string{"/healthz", "/report", "/readyz"} {
		within(t, path, func() bool { return d.page(t, path) != "" })
	}
}

// follows waits until the agent publishes, and follows HostNetworks.
func (d *daemon) follows(t *testing.T) {
	t.Helper()
	d.has(t, publishing+"_up 1")
	d.has(t, networking+"_up 1")
}

// TestTheAgentNeverGivesUp has the program with a kubeconfig that is none, a
// token that is none, a server that is killed, and a token that is revoked, one
// after the other, in one and the same process.
func TestTheAgentNeverGivesUp(t *testing.T) {
	needRoot(t)
	own := startOwn(t)
	config := own.Config()
	installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds"))
	installAgents(t, config)
	p, way := newPublished(t, config, "never")

	d := startDaemon(t, p.name, "clusters: [", "[]")
	d.suffers(t, "BadConfig", "correct kubernetes.kubeconfig", publishing, networking)
	if !strings.Contains(d.page(t, "/report"), "the policies are not known yet: read kubeconfig "+d.kubeconfig) {
		t.Error("the report does not say why there are no policies")
	}
	d.write(t, kubeconfigOf(as(way, "made-up")))
	d.suffers(t, "Unauthorized", "the token was revoked", publishing, networking)
	d.write(t, kubeconfigOf(way))
	d.follows(t)
	d.has(t, "virtnode_net_check_successful 1")
	d.refuses(t, p, "first")
	// Every host has a number of NUMA nodes; a no to KVM takes a minute.
	const label = "virtnode.io/numa.nodes"
	labels, condition := p.ours(), p.condition()
	if labels[label] == "" || condition.Reason == "" {
		t.Errorf("labels %v, condition %+v", labels, condition)
	}

	if err := own.KillServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.suffers(t, "Unreachable", "it is tried again by itself", publishing, networking)
	d.has(t, "virtnode_net_refusals 1") // the policies of before hold on
	if err := own.StartServer(); err != nil {
		t.Fatal(err)
	}
	d.follows(t)
	d.refuses(t, p, "second")
	if diff := cmp.Diff(labels, p.ours()) + cmp.Diff(condition, p.condition()); diff != "" {
		t.Error(diff)
	}

	p.revoke(way)
	p.edit(`{"metadata":{"labels":{"` + label + `":null}}}`)
	d.suffers(t, "Unauthorized", "the token was revoked", publishing) // watches that were begun last
	if _, there := p.ours()[label]; there {
		t.Error("a revoked token writes")
	}
	d.write(t, kubeconfigOf(as(config, agentToken(t, p.clients, p.name))))
	d.follows(t)
	within(t, "with a new token, "+label+" is what it was", func() bool { return p.ours()[label] == labels[label] })
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-d.ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// refuses makes a HostNetwork for a card that the host does not have, and waits
// until the agent has reported on it.
func (d *daemon) refuses(t *testing.T, p *published, policy string) {
	t.Helper()
	made := &v1alpha1.HostNetwork{ObjectMeta: metav1.ObjectMeta{Name: policy}}
	made.Spec.Interfaces = []v1alpha1.Interface{{Name: policy, Match: &v1alpha1.Match{Name: "no-such-card"}}}
	if err := p.objects.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	within(t, "the policy "+policy+" is refused", func() bool {
		return slices.ContainsFunc(p.object().Status.Networks, func(r v1alpha1.NetworkReport) bool {
			return r.Policy == policy && r.State == v1alpha1.NetworkRefused
		})
	})
}

// revoke deletes the pod that a token is bound to, and waits until the API
// server knows the token no more: it remembers for ten seconds.
func (p *published) revoke(way *rest.Config) {
	p.t.Helper()
	if err := p.clients.CoreV1().Pods(agentNamespace).Delete(p.t.Context(), "nodeagent-"+p.name, *metav1.NewDeleteOptions(0)); err != nil {
		p.t.Fatal(err)
	}
	token := kubernetes.NewForConfigOrDie(way)
	within(p.t, "the token is none any more", func() bool {
		_, err := token.CoreV1().Nodes().Get(p.t.Context(), p.name, metav1.GetOptions{})
		return apierrors.IsUnauthorized(err)
	})
}
