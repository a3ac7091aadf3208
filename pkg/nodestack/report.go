package nodestack

import (
	"time"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Report is kvmcheck's report with the stack joined to its findings, its
// verdict and its facts.
type Report struct {
	kvmcheck.Report
	Stack Facts `json:"stack"`
}

// NewReport judges, for a kind of node, a host and the stack around its KVM.
func NewReport(host kvmcheck.Facts, stack Facts, profile kvmcheck.Profile, agent string, at time.Time) Report {
	report := kvmcheck.NewReport(host, profile, agent, at)
	report.Add(Evaluate(stack, host, profile))
	return Report{Report: report, Stack: stack}
}
