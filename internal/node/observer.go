package node

import (
	"sync"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// observer makes the truth of what it is told, beginning with what was told to
// the world before.
type observer struct {
	now  func() time.Time
	wake chan struct{} // has one when there is something new

	mu       sync.Mutex
	truth    truth
	seeded   bool          // truth holds what was told to the world before
	latest   *Look         // until then
	networks *networksTold // nil: nothing is known of them
}

func newObserver(now func() time.Time) observer {
	return observer{now: now, wake: make(chan struct{}, 1)}
}

// seed begins with what was told to the world before, once. o.mu is held.
func (o *observer) seed(before func() truth) {
	if o.seeded {
		return
	}
	o.truth, o.seeded = before(), true
	if o.latest != nil {
		o.truth = o.truth.observe(*o.latest)
		o.latest = nil
	}
	o.lookAtNetworks()
}

// Observe tells what a look at the host has found. Every look counts, also
// while the cluster cannot be reached.
func (o *observer) Observe(look Look) {
	o.mu.Lock()
	if o.seeded {
		o.truth = o.truth.observe(look)
		o.lookAtNetworks()
	} else {
		o.latest = &look
	}
	o.mu.Unlock()
	o.awake()
}

// networksTold is what was told of the HostNetworks of the node.
type networksTold struct {
	reports []v1alpha1.NetworkReport
	managed bool
}

// ObserveNetworks tells what became of the HostNetworks of the node; managed
// is false where nobody looks after them. Until it was told, what was
// published before stays.
func (o *observer) ObserveNetworks(reports []v1alpha1.NetworkReport, managed bool) {
	if reports == nil && managed {
		return // nothing is known yet
	}
	o.mu.Lock()
	o.networks = &networksTold{reports, managed}
	o.lookAtNetworks()
	o.mu.Unlock()
	o.awake()
}

// lookAtNetworks counts what was told last as a look. It is told only when it
// changes, and holds until then.
func (o *observer) lookAtNetworks() {
	if o.seeded && o.networks != nil {
		o.truth.network = o.truth.network.observe(o.now(), o.networks.reports, o.networks.managed)
	}
}

// awake lets the next round come.
func (o *observer) awake() {
	select {
	case o.wake <- struct{}{}:
	default: // it comes already
	}
}
