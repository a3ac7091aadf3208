package network

import (
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestFindings(t *testing.T) {
	looked := Status{Checked: hosttest.Time(), Policies: []string{"storage"}}
	drifted := looked
	drifted.Drift, drifted.Plan = []string{"set nic0 up", "set nic1 up", "set nic2 up"}, "abc"
	with := func(s Status, change func(*Status)) Status { change(&s); return s }
	for name, test := range map[string]struct {
		status Status
		want   kvmcheck.Status
		reason kvmcheck.Reason
		says   string
	}{
		"as it shall be":       {looked, kvmcheck.Ready, "", "storage"},
		"not looked at yet":    {Status{}, kvmcheck.Unknown, kvmcheck.ReadFailed, "has not ended"},
		"it cannot be read":    {with(drifted, func(s *Status) { s.Error = "netlink says no" }), kvmcheck.Unknown, kvmcheck.ReadFailed, "netlink says no"},
		"drift":                {drifted, kvmcheck.NotReady, NetworkDrifted, "set nic0 up (and 2 more)"},
		"what is left of ours": {with(drifted, func(s *Status) { s.Policies = nil }), kvmcheck.NotReady, NetworkDrifted, "set nic0 up"},
		"a guard": {
			with(drifted, func(s *Status) {
				s.Refusals = []reconcile.Refusal{{Guard: "uplink", Target: "nic0", Message: "hands off", Evidence: []string{"a route"}}}
			}), kvmcheck.NotReady, NetworkRefused, "guard uplink: nic0: hands off (a route)",
		},
		"silent targets":                 {with(drifted, func(s *Status) { s.Held = "guard probe: nobody answers" }), kvmcheck.NotReady, NetworkRefused, "nobody answers"},
		"held, and brought back by hand": {with(looked, func(s *Status) { s.Held = "guard probe: nobody answers" }), kvmcheck.Ready, "", "storage"},
		"undone": {
			with(drifted, func(s *Status) {
				s.Last = reconcile.Outcome{Result: reconcile.Reverted, Cause: "cut off", Request: reconcile.Request{Plan: "abc"}}
			}), kvmcheck.NotReady, NetworkReverted, "plan abc was undone: cut off",
		},
		"drift after another plan was undone": {
			with(drifted, func(s *Status) {
				s.Last = reconcile.Outcome{Result: reconcile.Reverted, Cause: "cut off", Request: reconcile.Request{Plan: "def"}}
			}), kvmcheck.NotReady, NetworkDrifted, "set nic0 up",
		},
		"between two states": {
			with(looked, func(s *Status) {
				s.Last = reconcile.Outcome{Result: reconcile.Stuck, Cause: "cut off", Left: []string{"set nic0 up: no such device"}}
			}), kvmcheck.NotReady, NetworkStuck, "no such device",
		},
	} {
		findings := test.status.Findings()
		if len(findings) != 1 {
			t.Errorf("%s: %v", name, findings)
			continue
		}
		f := findings[0]
		if f.Status != test.want || f.Reason != test.reason || !strings.Contains(f.Message, test.says) || (f.Remedy == "") != (f.Status == kvmcheck.Ready) {
			t.Errorf("%s: %+v", name, f)
		}
		if !Checks()[0].Covers(f) || f.Reason != "" && f.Reason != kvmcheck.ReadFailed && !slices.Contains(Checks()[0].Reasons, f.Reason) {
			t.Errorf("%s: %s, %s is in no catalogue", name, f.Key(), f.Reason)
		}
	}
	if findings := (Status{Checked: hosttest.Time()}).Findings(); findings != nil {
		t.Errorf("without policies: %+v", findings)
	}
}

func TestReasonsAreExplained(t *testing.T) {
	for _, reason := range Checks()[0].Reasons {
		if !slices.ContainsFunc(Causes(), func(c kvmcheck.Cause) bool {
			return c.Reason == reason && c.Meaning != "" && len(c.Fixes) > 0
		}) {
			t.Errorf("%s is not explained", reason)
		}
	}
	if len(Causes()) != len(Checks()[0].Reasons) {
		t.Error("there are causes that no check gives")
	}
}
