// Command dashboard writes the Grafana dashboard of a cluster's nodes and VMs
// to standard output. It is a module of its own, since nothing else needs
// Grafana's library.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func run() error {
	built, err := build()
	if err != nil {
		return fmt.Errorf("build the dashboard: %w", err)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	return out.Encode(built)
}

// Which nodes and VMs are looked at.
const (
	node = `job="nodeagent", instance=~"$node"`
	vm   = node + `, namespace=~"$namespace", name=~"$vm"`
)

// A line is a query, and how its series are called.
type line struct{ expr, legend string }

// A curve is a panel over time.
type curve struct {
	title, about, unit string
	lines              []line
}

func curves() map[string][]curve {
	rate := func(family, selector string) string {
		return "rate(" + family + "{" + selector + "}[$__rate_interval])"
	}
	byVM := func(expr string) string { return "sum by (namespace, name) (" + expr + ")" }
	return map[string][]curve{
		"CPU": {
			{"CPU", "Physical CPUs that each VM uses, QEMU's own threads among them.", "none", []line{
				{byVM(rate("virtnode_vm_thread_cpu_seconds_total", vm)), "{{namespace}}/{{name}}"},
			}},
			{"Waiting for a physical CPU", "CPUs' worth of time in which virtual CPUs could have run and had to wait: the guest sees it as steal.", "none", []line{
				{byVM(rate("virtnode_vm_thread_delay_seconds_total", vm+`, role="vcpu"`)), "{{namespace}}/{{name}}"},
			}},
		},
		"Memory": {
			{"Resident memory", "What the host gives to each QEMU.", "bytes", []line{
				{byVM("virtnode_vm_process_resident_memory_bytes{" + vm + "}"), "{{namespace}}/{{name}}"},
			}},
			{"Memory of the guests", "What the balloon leaves to each guest.", "bytes", []line{
				{byVM("virtnode_vm_memory_current_bytes{" + vm + "}"), "{{namespace}}/{{name}}"},
			}},
		},
		"Disks and networks": {
			{"Disk traffic", "Reads are above, writes below zero.", "Bps", []line{
				{byVM(rate("virtnode_vm_block_read_bytes_total", vm)), "{{namespace}}/{{name}} read"},
				{"-" + byVM(rate("virtnode_vm_block_write_bytes_total", vm)), "{{namespace}}/{{name}} write"},
			}},
			{"Disk latency", "How long a write took on average.", "s", []line{
				{byVM(rate("virtnode_vm_block_write_seconds_total", vm)) + " / " + byVM(rate("virtnode_vm_block_write_requests_total", vm)), "{{namespace}}/{{name}}"},
			}},
			{"Network traffic", "What guests receive is above, what they send below zero.", "Bps", []line{
				{byVM(rate("virtnode_vm_network_receive_bytes_total", vm)), "{{namespace}}/{{name}} receive"},
				{"-" + byVM(rate("virtnode_vm_network_transmit_bytes_total", vm)), "{{namespace}}/{{name}} send"},
			}},
			{"Dropped packets", "Packets to and from guests that were dropped.", "pps", []line{
				{byVM(rate("virtnode_vm_network_receive_drops_total", vm)) + " + " + byVM(rate("virtnode_vm_network_transmit_drops_total", vm)), "{{namespace}}/{{name}}"},
			}},
		},
		"The agent": {
			{"Time of a scrape", "How long it took to collect a page.", "s", []line{
				{"virtnode_scrape_duration_seconds{" + node + "}", "{{instance}}"},
			}},
			{"Age of the numbers", "How old what QEMU told was when it was served.", "s", []line{
				{"max by (instance) (virtnode_vm_monitor_age_seconds{" + node + "})", "{{instance}}"},
			}},
		},
	}
}

func build() (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder("KubeVirt nodes and VMs").
		Uid("virtnode-nodes").
		Description("Which nodes can run VMs and why not, what holds them up, and how their VMs do.").
		Tags([]string{"virtnode", "kubevirt"}).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Time("now-1h", "now").
		Refresh("30s").
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(variable("node", "Node", `label_values(virtnode_build_info{job="nodeagent"}, instance)`)).
		WithVariable(variable("namespace", "Namespace", `label_values(virtnode_vm_info{`+node+`}, namespace)`)).
		WithVariable(variable("vm", "VM", `label_values(virtnode_vm_info{`+node+`, namespace=~"$namespace"}, name)`)).
		WithRow(dashboard.NewRowBuilder("Nodes")).
		WithPanel(figure("Nodes", "Nodes whose agent answers.", `count(up{`+node+`} == 1)`)).
		WithPanel(figure("Not ready", "Nodes that cannot run VMs.", `count(virtnode_ready{`+node+`} == 0) or vector(0)`)).
		WithPanel(figure("VMs", "Virtual machines that are known, in every state.", `count(virtnode_vm_info{`+vm+`})`)).
		WithPanel(figure("Not answering", "Virtual machines whose QEMU does not tell how it does.", `count(virtnode_vm_monitor_state{`+vm+`, reason!~"Ready|Busy"}) or vector(0)`)).
		WithPanel(list("Why nodes are not ready", "Checks that are required and not ready.", `virtnode_check_status{`+node+`, level="required", status!="Ready"} == 1`)).
		WithPanel(list("Daemons", "How each source of telemetry is.", `virtnode_source_state{`+node+`} == 1`))
	for _, row := range []string{"CPU", "Memory", "Disks and networks", "The agent"} {
		d.WithRow(dashboard.NewRowBuilder(row))
		for _, c := range curves()[row] {
			d.WithPanel(overTime(c))
		}
	}
	return d.Build()
}

func source() common.DataSourceRef {
	kind, uid := "prometheus", "${datasource}"
	return common.DataSourceRef{Type: &kind, Uid: &uid}
}

// variable is a choice of any number of a label's values.
func variable(name, label, query string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).
		Datasource(source()).
		Query(dashboard.StringOrMap{String: &query}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).IncludeAll(true).AllValue(".*")
}

// figure is one number.
func figure(title, about, expr string) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Description(about).
		Datasource(source()).Height(4).Span(6).
		WithTarget(prometheus.NewDataqueryBuilder().Datasource(source()).Expr(expr).Instant())
}

// list shows the labels of every series.
func list(title, about, expr string) *table.PanelBuilder {
	return table.NewPanelBuilder().Title(title).Description(about).
		Datasource(source()).Height(7).Span(12).
		WithTarget(prometheus.NewDataqueryBuilder().Datasource(source()).Expr(expr).Instant().Format(prometheus.PromQueryFormatTable))
}

func overTime(c curve) *timeseries.PanelBuilder {
	panel := timeseries.NewPanelBuilder().Title(c.title).Description(c.about).
		Datasource(source()).Height(8).Span(12).Unit(c.unit).
		FillOpacity(10).ShowPoints(common.VisibilityModeNever)
	for i, l := range c.lines {
		panel.WithTarget(prometheus.NewDataqueryBuilder().Datasource(source()).
			RefId(string(rune('A' + i))).Expr(l.expr).LegendFormat(l.legend).Range())
	}
	return panel
}
