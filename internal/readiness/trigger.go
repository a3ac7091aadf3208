package readiness

import (
	"context"
	"slices"
	"time"

	"github.com/virtnode/nodeagent/internal/uevent"
)

// Trigger is why the host was probed.
type Trigger string

// The triggers.
const (
	Start     Trigger = "start"
	Interval  Trigger = "interval"
	Confirm   Trigger = "confirm" // a no is looked at again before it is believed
	Uevent    Trigger = "uevent"
	Hugepages Trigger = "hugepages"
	Reload    Trigger = "reload" // of the configuration
)

// Triggers lists every trigger.
func Triggers() []Trigger {
	return []Trigger{Start, Interval, Confirm, Uevent, Hugepages, Reload}
}

const (
	// jitter is how far an interval strays to either side, as a part of it, so
	// that the nodes of a cluster do not act in step.
	jitter = 0.1
	// confirmAfter is the interval while a no waits to be believed: three of
	// them take the minute that kvmcheck.Steady wants.
	confirmAfter = 30 * time.Second
	// pagesEvery is how often the huge pages' counters are compared.
	pagesEvery = 10 * time.Second
	// A burst of events starts one probe when it has been quiet for settle,
	// or when settleMost has passed.
	settle     = 250 * time.Millisecond
	settleMost = 2 * time.Second
)

// wait returns when the next probe is due, or ctx has ended.
func (l *Loop) wait(ctx context.Context, interval time.Duration, pages string, events <-chan struct{}) Trigger {
	after, timed := strayed(interval, l.opt.Random()), Interval
	if state, _ := l.State(); state.Steady.Pending() && confirmAfter < after {
		after, timed = confirmAfter, Confirm
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	poll := time.NewTicker(pagesEvery)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-timer.C:
			return timed
		case <-events:
			waitForQuiet(ctx, events)
			return Uevent
		case <-poll.C:
			if l.opt.Hugepages(ctx) != pages {
				return Hugepages
			}
		}
	}
}

// strayed moves an interval by up to a tenth; random is in [0,1).
func strayed(interval time.Duration, random float64) time.Duration {
	return interval + time.Duration(float64(interval)*jitter*(2*random-1))
}

// waitForQuiet lets a burst of events pass.
func waitForQuiet(ctx context.Context, events <-chan struct{}) {
	limit := time.NewTimer(settleMost)
	defer limit.Stop()
	for {
		quiet := time.NewTimer(settle)
		select {
		case <-events:
			quiet.Stop()
			continue
		case <-quiet.C:
		case <-limit.C:
		case <-ctx.Done():
		}
		quiet.Stop()
		return
	}
}

// matters reports whether an event can change what a probe finds.
func matters(event uevent.Event) bool {
	if event == (uevent.Event{}) {
		return true // something was lost; nobody knows what
	}
	switch event.Action {
	case "add", "remove", "bind", "unbind", "online", "offline":
	default:
		// Nothing came or went. Above all KVM announces a change of /dev/kvm
		// for every VM, that of the proof included.
		return false
	}
	switch event.Subsystem {
	case "module", "pci", "vfio", "iommu", "node", "cpu", "memory":
		return true
	case "misc":
		return slices.Contains([]string{"kvm", "vhost-net", "vhost-vsock", "net/tun", "vfio/vfio", "iommu", "sev"}, event.Device)
	default:
		return false
	}
}
