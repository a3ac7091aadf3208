package network

import (
	"fmt"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

const areaNetwork, checkPolicies = "network", "policies"

// The reasons. Each stands for one cause.
const (
	NetworkDrifted  kvmcheck.Reason = "NetworkDrifted"
	NetworkRefused  kvmcheck.Reason = "NetworkRefused"
	NetworkReverted kvmcheck.Reason = "NetworkReverted"
	NetworkStuck    kvmcheck.Reason = "NetworkStuck"
)

// Checks lists what a [Watch] adds to the check of a host.
func Checks() []kvmcheck.Check {
	return []kvmcheck.Check{{
		Area: areaNetwork, Name: checkPolicies, Level: kvmcheck.Recommended, Asks: "Is the host's network as its policies want it? (nodeagent run only)",
		Reads: "netlink, /sys/bus/pci/devices, the journal", Reasons: []kvmcheck.Reason{NetworkDrifted, NetworkRefused, NetworkReverted, NetworkStuck},
	}}
}

// Causes explains the reasons.
func Causes() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		{Reason: NetworkDrifted, Meaning: "Somebody else has changed what the policies of the host network want, or it went away by itself. VMs that rely on it may have no network.", Fixes: []kvmcheck.Fix{
			{Do: "nodeagent plan -f FILE shows what is to be done; nodeagent apply -f FILE does it"},
			{Do: "network.repair: true lets the agent bring back what disturbs nobody"},
			{On: "NetworkManager, systemd-networkd", Do: "make it leave the link alone: nodeagent net shows who manages a link"},
		}},
		{Reason: NetworkRefused, Meaning: "A guard forbids something that a policy wants: it would cut the node off, or take from others what they use. Nothing of the policies is applied until that is solved.", Fixes: []kvmcheck.Fix{
			{Do: "nodeagent plan -f FILE names the guard and what it saw; free what is in use, or change the policy"},
		}},
		{Reason: NetworkReverted, Meaning: "The policies were applied, and undone again: a write failed, or the node could not be reached afterwards. The host is as it was before.", Fixes: []kvmcheck.Fix{
			{Do: "correct the cause that the finding names, or the policy; the same plan is tried again only when a person names it: nodeagent apply -f FILE --plan HASH"},
		}},
		{Reason: NetworkStuck, Meaning: "A change of the network failed, and could not be undone either. The host is between two states.", Fixes: []kvmcheck.Fix{
			{Do: "restart the agent: it goes on undoing at its start; the log names what is left"},
		}},
	}
}

// Findings judges a status. There is nothing to say of a host for which there
// is no policy, and of which nothing is the agent's.
func (s Status) Findings() []kvmcheck.Finding {
	if s.Error == "" && !s.Checked.IsZero() && len(s.Policies) == 0 && len(s.Drift) == 0 && s.Last.Result != reconcile.Stuck {
		return nil
	}
	finding := kvmcheck.Finding{Area: areaNetwork, Check: checkPolicies}
	lacking := func(reason kvmcheck.Reason, message, remedy string) {
		finding.Status, finding.Reason, finding.Message, finding.Remedy = kvmcheck.NotReady, reason, message, remedy
	}
	switch {
	case s.Last.Result == reconcile.Stuck:
		lacking(NetworkStuck, "a change could not be undone: "+firstOf(s.Last.Left)+"; it failed because: "+s.Last.Cause, "systemctl restart nodeagent, or delete the agent's pod: it goes on undoing at its start")
	case s.Error != "" || s.Checked.IsZero():
		finding.Reason, finding.Message, finding.Remedy = kvmcheck.ReadFailed, s.Error, "see the cause named here"
		if s.Error == "" {
			finding.Message, finding.Remedy = "the first look has not ended", "wait, or look at the agent's log"
		}
	case len(s.Refusals) > 0:
		lacking(NetworkRefused, firstOf(refusalsOf(s.Refusals)), "nodeagent plan -f FILE names all that is refused; free it, or change the policy")
	case len(s.Drift) > 0 && s.Held != "":
		lacking(NetworkRefused, s.Held, "correct what is named here; the next change of the policies, and the next start of the machine, applies them")
	case len(s.Drift) > 0 && s.Last.Result == reconcile.Reverted && s.Last.Request.Plan == s.Plan:
		lacking(NetworkReverted, "plan "+s.Plan+" was undone: "+s.Last.Cause, "correct the cause, then nodeagent apply -f FILE --plan "+s.Plan)
	case len(s.Drift) > 0:
		lacking(NetworkDrifted, "to be as the policies want it: "+firstOf(s.Drift), "nodeagent apply -f FILE, or network.repair: true in the configuration")
	default:
		finding.Status, finding.Message = kvmcheck.Ready, "as the policies want it: "+strings.Join(s.Policies, ", ")
	}
	return []kvmcheck.Finding{finding}
}

// firstOf shortens a list to what fits into a finding.
func firstOf(lines []string) string {
	switch len(lines) {
	case 0:
		return ""
	case 1:
		return lines[0]
	}
	return fmt.Sprintf("%s (and %d more)", lines[0], len(lines)-1)
}

func refusalsOf(refusals []reconcile.Refusal) []string {
	lines := make([]string, 0, len(refusals))
	for i := range refusals {
		lines = append(lines, refusals[i].Error())
	}
	return lines
}
