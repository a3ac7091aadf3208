package metrics

import (
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Readiness is whether the host can run VMs, and how that is found out.
type Readiness struct {
	Durable  string // the verdict that does not flap, as in CheckState
	Checks   []CheckState
	Probes   []ProbeCount
	Duration time.Duration // of the last probe
	Last     time.Time     // when the last probe ended
	Events   bool          // the kernel's events start probes
	Hung     int           // reads and ioctls that have not returned
}

// CheckState is the verdict on one thing that VMs need of the host.
type CheckState struct {
	Area, Check string
	Level       string // "required"
	Status      string // now: "Ready", "NotReady" or "Unknown"; empty when it is not made any more
	Reason      string // why it is not ready; empty when it is
	Durable     string // "Ready", "NotReady"; anything else is not decided
	Transitions uint64 // of Durable
}

// ProbeCount counts the probes that a cause has started.
type ProbeCount struct {
	Trigger string
	Count   uint64
}

// appendReadiness appends what is known about the host, if anything is.
func appendReadiness(w *writer, r *Readiness) {
	if r == nil {
		return
	}
	write(w, readinessFamilies[:], []Readiness{*r}, unlabelled[Readiness])
	write(w, checkFamilies[:], r.Checks, labelCheck)
}

func labelCheck(buf []byte, c *CheckState) []byte {
	buf = appendLabel(buf, "area", c.Area)
	return appendLabel(append(buf, ','), "check", c.Check)
}

// verdict is one for Ready, zero for NotReady, and otherwise not known.
func verdict(status string) qemu.Num {
	switch status {
	case "Ready":
		return qemu.Some(1)
	case "NotReady":
		return qemu.Some(0)
	default:
		return qemu.Num{}
	}
}

// readinessFamilies are about the host as a whole.
var readinessFamilies = [...]family[Readiness]{
	{
		"virtnode_ready", gauge, plain, "", fromAgent, "Whether the host can run VMs. It follows a no after three in a row over at least a minute, and a yes at once; no series until it is decided.",
		func(w *writer, r *Readiness) { w.put(verdict(r.Durable)) },
	},
	{
		"virtnode_readiness_probes_total", counter, plain, "trigger", fromAgent, "Checks of the host, by what started them; confirm looks at a no again before it is believed.",
		func(w *writer, r *Readiness) {
			for _, probes := range r.Probes {
				w.putLabel("trigger", probes.Trigger, qemu.Some(probes.Count))
			}
		},
	},
	{
		"virtnode_readiness_probe_duration_seconds", gauge, nanoseconds, "", fromAgent, "How long the last check of the host took.",
		func(w *writer, r *Readiness) { w.put(qemu.Some(uint64(max(r.Duration, 0)))) },
	},
	{
		"virtnode_readiness_last_probe_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When the host was last checked.",
		func(w *writer, r *Readiness) { w.put(unixTime(r.Last)) },
	},
	{
		"virtnode_readiness_events", gauge, plain, "", fromAgent, "Whether the kernel's announcements of modules and devices start a check; if not, only the interval does.",
		func(w *writer, r *Readiness) { w.put(boolean(r.Events)) },
	},
	{
		"virtnode_readiness_hung_calls", gauge, plain, "", fromAgent, "Reads and ioctls of checks that have not returned; the kernel or a driver hangs there.",
		func(w *writer, r *Readiness) { w.put(qemu.Some(uint64(max(r.Hung, 0)))) },
	},
}

// checkFamilies are about one check of the host.
var checkFamilies = [...]family[CheckState]{
	{
		"virtnode_check_ready", gauge, plain, "level", fromAgent, "Whether a check is ready, by the rule of virtnode_ready; no series until it is decided.",
		func(w *writer, c *CheckState) { w.putLabel("level", c.Level, verdict(c.Durable)) },
	},
	{
		"virtnode_check_status", gauge, plain, "level status reason", fromAgent, "What the last check found: Ready, NotReady or Unknown, and the reason for the latter two. Always 1; other states have no series.",
		emitCheckStatus,
	},
	{
		"virtnode_check_transitions_total", counter, plain, "", fromAgent, "How often virtnode_check_ready went from 1 to 0 or back.",
		func(w *writer, c *CheckState) { w.put(qemu.Some(c.Transitions)) },
	},
}

func emitCheckStatus(w *writer, c *CheckState) {
	if c.Status == "" {
		return
	}
	pairs := []string{"level", c.Level, "status", c.Status, "reason", c.Reason}
	if c.Reason == "" {
		pairs = pairs[:4]
	}
	w.putLabels(qemu.Some(1), pairs...)
}
