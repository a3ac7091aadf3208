package nodestack

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// finding is what every evaluation returns.
type finding = kvmcheck.Finding

// Evaluate judges the stack for a kind of node, beside what was read about
// KVM itself. It is pure: the same facts give the same findings, in the order
// of [Checks].
func Evaluate(facts Facts, host kvmcheck.Facts, profile kvmcheck.Profile) []kvmcheck.Finding {
	if facts.NotRecorded {
		return profile.GradeBy(Checks(), []finding{{
			Area: "kubelet", Check: "node", Status: kvmcheck.Unknown, Reason: kvmcheck.ReadFailed,
			Message: "this recording says nothing about the stack around KVM",
			Remedy:  "record the host anew with this agent",
		}})
	}
	return profile.GradeBy(Checks(), slices.Concat(
		evaluateNode(facts, host),
		evaluateGuestAgent(facts),
		[]finding{evaluateClock(facts)},
	))
}

// evaluateNode judges what only a kubelet's host needs. Without a kubelet one
// finding says so; when nobody can tell, nothing of it can be told.
func evaluateNode(facts Facts, host kvmcheck.Facts) []finding {
	node := evaluateKubeletNode(facts)
	running := facts.Kubelet.Running
	if running.Known && !running.Value {
		return []finding{node}
	}
	findings := slices.Concat(
		[]finding{node},
		evaluateKubelet(facts, host),
		evaluateRuntime(facts),
		evaluateCNI(facts),
		evaluateStorage(facts),
	)
	if !running.Known {
		for i, f := range findings {
			findings[i] = kvmcheck.Undecided(f.Area, f.Check, running.Err)
		}
	}
	return findings
}

// evaluateGuestAgent judges the VMs of the host's own libvirt. Those of
// KubeVirt have their libvirt in their pods.
func evaluateGuestAgent(facts Facts) []finding {
	const area, check = "guest-agent", "channel"
	domains, kubelet := facts.Domains, facts.Kubelet.Running
	switch {
	case !domains.Known:
		return []finding{kvmcheck.Undecided(area, check, domains.Err)}
	case len(domains.Value) == 0 && kubelet.Known && !kubelet.Value:
		return nil // no VM to ask about
	case len(domains.Value) == 0:
		return []finding{{
			Area: area, Check: check, Status: kvmcheck.Unknown, Reason: GuestAgentInPods,
			Message: domains.Source + " has no VM; those of KubeVirt have their libvirt in their pods, where the host cannot look",
			Remedy:  "kubectl get vmi -A -o custom-columns=NAME:.metadata.name,AGENT:'.status.conditions[?(@.type==\"AgentConnected\")].status'",
		}}
	}
	var without, silent []string
	for _, domain := range domains.Value {
		switch domain.Agent {
		case "connected":
		case "":
			without = append(without, domain.Name)
		default:
			silent = append(silent, domain.Name)
		}
	}
	switch {
	case len(without) > 0:
		return []finding{kvmcheck.Lacking(area, check, GuestAgentChannelMissing,
			fmt.Sprintf("%d of %d VMs have no channel for a guest agent: %s", len(without), len(domains.Value), some(without)),
			"add a virtio channel named "+agentChannel+" to the VM (virsh attach-device --config)")}
	case len(silent) > 0:
		return []finding{kvmcheck.Lacking(area, check, GuestAgentSilent,
			fmt.Sprintf("in %d of %d VMs no guest agent has opened its channel: %s", len(silent), len(domains.Value), some(silent)),
			"install and start qemu-guest-agent in the VM")}
	default:
		return []finding{kvmcheck.Found(area, check, fmt.Sprintf("the guest agents of all %d VMs are connected", len(domains.Value)))}
	}
}

// some names the first few of many.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// evaluateClock judges the kernel's own view. A chronyd without rtcsync never
// tells the kernel, so that "not synchronised" then means nothing.
func evaluateClock(facts Facts) finding {
	const area, check = "time", "sync"
	clock, chrony := facts.Clock, daemon(facts.Daemons, "chronyd")
	switch {
	case !clock.Known:
		return kvmcheck.Undecided(area, check, clock.Err)
	case clock.Value.Synchronised:
		return kvmcheck.Found(area, check, fmt.Sprintf("synchronised, within %s", withinOf(clock.Value.MaxErrorUsec)))
	case chrony.Known && chrony.Value:
		return finding{
			Area: area, Check: check, Status: kvmcheck.Unknown, Reason: ClockNotSynchronised,
			Message: clock.Source + ": STA_UNSYNC, but chronyd runs, and does not tell the kernel unless it has rtcsync",
			Remedy:  "chronyc tracking; add rtcsync to /etc/chrony/chrony.conf",
		}
	case !chrony.Known:
		return kvmcheck.Undecided(area, check, clock.Source+": STA_UNSYNC, and nobody can tell whether chronyd runs: "+chrony.Err)
	default:
		return kvmcheck.Lacking(area, check, ClockNotSynchronised,
			clock.Source+": STA_UNSYNC: nothing disciplines the clock"+otherClock(facts),
			"install and start chrony: certificates, leases and live migration rely on the time")
	}
}

func otherClock(facts Facts) string {
	for _, name := range []string{"systemd-timesyn", "ntpd"} {
		if runs := daemon(facts.Daemons, name); runs.Value {
			return ", although " + strings.Replace(name, "timesyn", "timesyncd", 1) + " runs"
		}
	}
	return ""
}

// withinOf rounds an error up to a power of ten, so that a report does not
// change from one reading to the next.
func withinOf(usec int64) string {
	bound, unit := int64(1), "µs"
	for bound < usec && bound < 1e9 {
		bound *= 10
	}
	switch {
	case bound >= 1e6:
		bound, unit = bound/1e6, "s"
	case bound >= 1e3:
		bound, unit = bound/1e3, "ms"
	}
	return fmt.Sprintf("%d %s", bound, unit)
}
