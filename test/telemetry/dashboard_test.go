package telemetry

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/prometheus"
)

// neverReady makes every host one that cannot run VMs, with or without KVM.
const neverReady = `readiness:
  rules:
    - name: never
      expression: 'false'
      reason: NeverHolds
      message: this never holds
      remedy: none
      level: required
`

// dashboardPatience bounds the wait for data: a host is not ready after three
// looks in more than a minute.
const dashboardPatience = 3 * time.Minute

// query is one of the dashboard's, with the title of its panel.
type query struct{ panel, expr string }

func dashboardQueries(t *testing.T) []query {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(hosttest.Root(), "deploy", "monitoring", "dashboard.json"))
	must(t, err)
	type panel struct {
		Title   string  `json:"title"`
		Panels  []panel `json:"panels"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	}
	var top panel
	must(t, json.Unmarshal(text, &top))
	var queries []query
	var walk func(panel)
	walk = func(p panel) {
		for _, target := range p.Targets {
			queries = append(queries, query{p.Title, target.Expr})
		}
		for _, inner := range p.Panels {
			walk(inner)
		}
	}
	walk(top)
	if len(queries) < 15 {
		t.Fatalf("found %d queries: the dashboard is read wrongly", len(queries))
	}
	return queries
}

// TestDashboardHasData asks a real Prometheus, which scrapes the agent on real
// machines, every query of the dashboard. One machine hangs, and the host
// cannot run VMs, so that what counts what is wrong has something to count.
func TestDashboardHasData(t *testing.T) {
	f := sharedFleet(t)
	agent := startAgent(t, neverReady, f.URI())
	server := prometheus.New(t, agent.Address)
	// As Grafana puts values in for variables when everything is selected. The
	// bed's server has a job of its own name.
	fill := strings.NewReplacer(`job="nodeagent"`, `job="test"`, "$node", ".*", "$namespace", ".*", "$vm", ".*", "$__rate_interval", "30s")
	ctx, cancel := context.WithTimeout(t.Context(), dashboardPatience)
	defer cancel()
	// Rates of the machine that will hang are there before it does.
	if _, err := server.Wait(ctx, `rate(virtnode_vm_block_write_bytes_total{name="vm-0"}[30s]) > 0`); err != nil {
		t.Fatal(err)
	}
	must(t, f.Hang("vm-1"))
	t.Cleanup(func() { must(t, f.Resume("vm-1")) })
	for _, q := range dashboardQueries(t) {
		expr := fill.Replace(q.expr)
		if strings.Contains(expr, "$") {
			t.Errorf("%s: %s has a variable that nobody fills", q.panel, expr)
			continue
		}
		// A count of what is wrong is zero without any; here it is not.
		if counted, isCount := strings.CutSuffix(expr, " or vector(0)"); isCount {
			expr = counted
		}
		if _, err := server.Wait(ctx, expr); err != nil {
			t.Errorf("%s has no data: %v", q.panel, err)
		}
	}
}
