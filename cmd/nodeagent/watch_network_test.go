package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// watching is an agent that runs in a network namespace.
type watching struct {
	*daemonUnderTest
	t      *testing.T
	space  *hosttest.Space
	client *http.Client
}

func startWatching(t *testing.T, space *hosttest.Space, config string) *watching {
	t.Helper()
	cmd := command()
	cmd.Env = append(cmd.Env, "NODE_NAME=watching")
	cmd.Path = lookPath(t, "nsenter")
	cmd.Args = []string{
		"nsenter", "--net=" + space.Path, "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--",
		command().Path, "run", "--config", config,
	}
	dial := func(ctx context.Context, kind, address string) (connection net.Conn, err error) {
		space.Inside(func() { connection, err = new(net.Dialer).DialContext(ctx, kind, address) })
		return connection, err
	}
	return &watching{follow(t, cmd), t, space, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// page is "" while the agent does not answer.
func (w *watching) page(path string) string {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return ""
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || response.Body.Close() != nil || response.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// until waits for metrics that have every line.
func (w *watching) until(what string, lines ...string) {
	w.t.Helper()
	var page string
	eventually(w.t, what, func() bool {
		page = "\n" + w.page("/metrics")
		return !slices.ContainsFunc(lines, func(line string) bool { return !strings.Contains(page, "\n"+line+"\n") })
	})
}

// finding is what the report says of the network, and what is beside it.
func (w *watching) finding() (finding kvmcheck.Finding, status network.Status) {
	w.t.Helper()
	var report struct {
		kvmcheck.Report
		Network network.Status
	}
	if err := json.Unmarshal([]byte(w.page("/report")), &report); err != nil {
		w.t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Key() == "network/policies" {
			finding = f
		}
	}
	return finding, report.Network
}

const networkConfig = `web: {listenAddress: '127.0.0.1:0'}
log: {format: json}
readiness: {interval: 1s}
telemetry: {bpf: false, kubelet: ''}
network: {policies: ['POLICY'], interval: 1s, stateDirectory: 'STATE', repair: REPAIR}
`

// TestRunTellsDrift changes links behind the back of a running agent, and looks
// at what it tells of them.
func TestRunTellsDrift(t *testing.T) {
	space := hosttest.NewSpace(t)
	space.IP("link add nic0 type veth peer name nic0p")
	space.IP("link set nic0p up")
	policy, state := write(t, "storage.yaml", onePolicy), filepath.Join(t.TempDir(), "state")
	fill := func(repair string) string {
		return strings.NewReplacer("POLICY", policy, "STATE", state, "REPAIR", repair).Replace(networkConfig)
	}
	file := write(t, "nodeagent.yaml", fill("false"))
	w := startWatching(t, space, file)
	const status = `virtnode_check_status{area="network",check="policies",level="recommended",status=`
	good := []string{
		"virtnode_net_drift 0", "virtnode_net_refusals 0", "virtnode_net_check_successful 1", "virtnode_net_applies_total 1",
		"virtnode_net_rollbacks_total 0", "virtnode_net_stuck 0", status + `"Ready"} 1`,
		`virtnode_check_ready{area="network",check="policies",level="recommended"} 1`,
	}
	w.until("the policy holds", good...)
	if finding, now := w.finding(); finding.Status != kvmcheck.Ready || len(now.Drift) != 0 || !slices.Equal(now.Policies, []string{"storage"}) {
		t.Errorf("%+v, %+v", finding, now)
	}

	space.IP("link set nic0 mtu 8000")
	w.until("drift", "virtnode_net_drift 2", "virtnode_net_applies_total 1", status+`"NotReady",reason="NetworkDrifted"} 1`)
	finding, now := w.finding()
	if !strings.Contains(finding.Message, "set MTU of nic0 from 8000 to 9000 (and 1 more)") || finding.Remedy == "" || len(now.Drift) != 2 {
		t.Errorf("%+v, %+v", finding, now)
	}

	rewrite(t, policy, "kind: HostNetwork\n")
	w.until("what cannot be read", "virtnode_net_check_successful 0", status+`"Unknown",reason="ReadFailed"} 1`)
	if page := w.page("/metrics"); strings.Contains(page, "virtnode_net_drift ") || strings.Contains(page, "virtnode_net_refusals ") {
		t.Error("what is not known is told")
	}

	rewrite(t, policy, onePolicy+"  - {name: gone, match: {name: nic9}}\n")
	w.until("a refusal", "virtnode_net_refusals 1", "virtnode_net_applies_total 1", status+`"NotReady",reason="NetworkRefused"} 1`)

	rewrite(t, policy, onePolicy)
	rewrite(t, file, fill("true"))
	w.until("repaired", good...)
	if link := space.IP("link show nic0"); !strings.Contains(link, "mtu 9000") {
		t.Errorf("got %s", link)
	}
}

// TestRunWithoutAWayToTheCluster hands the network over to a cluster that
// nobody finds the way to: what was applied last holds, drift is told and
// repaired, and the agent is ready.
func TestRunWithoutAWayToTheCluster(t *testing.T) {
	space := hosttest.NewSpace(t)
	space.IP("link add nic0 type veth peer name nic0p")
	space.IP("link set nic0p up")
	state, kubeconfig := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "kubeconfig")
	fill := func(policies, repair string) string {
		return strings.NewReplacer("'POLICY'", policies, "STATE", state, "REPAIR", repair).Replace(networkConfig) + "kubernetes: {kubeconfig: '" + kubeconfig + "'}\n"
	}
	file := write(t, "nodeagent.yaml", fill("'"+write(t, "storage.yaml", onePolicy)+"'", "false"))
	w := startWatching(t, space, file)
	w.until("the policy holds", "virtnode_net_drift 0", "virtnode_net_applies_total 1")
	if strings.Contains(w.page("/metrics"), "virtnode_net_cluster_up") {
		t.Error("policies of files are said to come from the cluster")
	}

	rewrite(t, file, fill("", "false"))
	w.until("there is no kubeconfig", "virtnode_net_cluster_up 0", `virtnode_net_cluster_errors_total{reason="BadConfig"} 3`, "virtnode_net_drift 0", "virtnode_net_check_successful 1")
	space.IP("link set nic0 mtu 8000")
	w.until("drift", "virtnode_net_drift 2")
	if w.page("/readyz") == "" || strings.Contains(w.page("/metrics"), "\nvirtnode_task_restarts_total{task=\"network\"} 1") {
		t.Error("the task of the network fails")
	}
	rewrite(t, file, fill("", "true"))
	w.until("repaired", "virtnode_net_drift 0")

	// Without anything that was applied before, there is nothing to hold on to.
	rewrite(t, file, strings.Replace(fill("", "true"), state, state+"2", 1))
	w.until("the policies are not known", "virtnode_net_check_successful 0")
	eventually(t, "it is found, and why", func() bool {
		finding, now := w.finding()
		return finding.Reason == kvmcheck.ReadFailed && strings.Contains(finding.Message, kubeconfig) && now.Error == finding.Message
	})
	if w.page("/readyz") == "" {
		t.Error("the agent is not ready")
	}
}
