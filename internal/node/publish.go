package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// Bounds of publishing.
const (
	writeTimeout = 10 * time.Second
	// Rounds of writes at once, and time between two in the long run: who
	// undoes what the agent writes shall not make it a burden to the cluster.
	writeBurst  = 10
	writePeriod = 30 * time.Second
)

// Options says what a [Publisher] uses.
type Options struct {
	// Config returns the way to the cluster. It is asked again until it knows one.
	Config func() (*rest.Config, error)
	// Node is the name of the agent's own Node.
	Node string
	// Splay is the longest that the start is put off, so that the agents of a
	// cluster do not all come at once.
	Splay  time.Duration
	Random func() float64 // in [0,1)
	Now    func() time.Time
	Log    *slog.Logger
}

// State is what a [Publisher] has done.
type State struct {
	Up          bool              // the API server has what was found last
	Writes      map[string]uint64 // requests that succeeded, by what was written
	Errors      map[string]uint64 // by reason
	Conflicts   uint64            // fields that came to be in conflict
	InConflict  int               // fields that are
	Labels      int               // published
	LabelsCut   int               // left out, since there are too many
	Rounds      uint64            // looks at what differs
	LastSuccess time.Time         // when the API server last had what was found
}

// Publisher keeps a Node and its NodeVirtualization as looks at the host say.
// What it knows outlives a Run.
type Publisher struct {
	opt     Options
	writes  flowcontrol.RateLimiter
	failing *failures
	node    place[*corev1.Node]
	object  place[*v1alpha1.NodeVirtualization]

	observer      // its mutex protects what follows, too
	kindless bool // the kind NodeVirtualization could not be looked at
	state    State
	clashes  map[string]clash  // by field
	refused  map[string]string // by what is written: the attempt that met a conflict
}

// NewPublisher returns a publisher that knows nothing yet.
func NewPublisher(opt Options) *Publisher {
	p := &Publisher{
		opt: opt, observer: newObserver(opt.Now),
		writes:  flowcontrol.NewTokenBucketRateLimiter(float32(time.Second)/float32(writePeriod), writeBurst),
		failing: newFailures("publishing to the cluster fails; it is tried again", "publishing works again", opt.Log, func() {}),
		clashes: make(map[string]clash),
		refused: make(map[string]string),
	}
	p.node.changed, p.object.changed = p.awake, p.awake
	p.state.Writes = make(map[string]uint64)
	for _, what := range []string{writesLabels, writesConditions, writesObject, writesStatus} {
		p.state.Writes[what] = 0
	}
	return p
}

// State returns what was done until now.
func (p *Publisher) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.state
	state.Writes, state.Errors = maps.Clone(state.Writes), p.failing.counts()
	state.Up = p.failing.first() == nil && !state.LastSuccess.IsZero()
	state.InConflict = len(p.clashes)
	return state
}

// Run publishes until ctx ends. It is ready at once: without the cluster, the
// agent does the rest of its work.
func (p *Publisher) Run(ctx context.Context, ready func()) error {
	ready()
	if !pause(ctx, time.Duration(p.opt.Random()*float64(p.opt.Splay))) {
		return nil
	}
	if client, connected := connect(ctx, p.opt.Config, newAPI, p.failing); connected {
		p.publish(ctx, client)
	}
	return nil
}

// publish follows the own Node and NodeVirtualization, and writes when they
// are not as the host is.
func (p *Publisher) publish(ctx context.Context, client *api) {
	// What goes wrong is logged by failures, once and in one form.
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, klog.Logger{}))
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		client.follow(ctx, nodes, p.opt.Node, &corev1.Node{}, &p.node, func(err error) { p.noteWatch(ctx, nodes, err) })
	})
	watching.Go(func() {
		client.follow(ctx, objects, p.opt.Node, &v1alpha1.NodeVirtualization{}, &p.object, func(err error) { p.noteWatch(ctx, objects, err) })
	})
	backoff := newBackoff()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-retry.C:
		}
		again, err := p.round(ctx, client)
		if ctx.Err() != nil {
			return
		}
		p.failing.note("write", err)
		switch {
		case err != nil:
			retry.Reset(backoff.Step())
		case again > 0:
			retry.Reset(again)
		default:
			backoff = newBackoff()
		}
	}
}

func (p *Publisher) noteWatch(ctx context.Context, resource string, err error) {
	if ctx.Err() != nil {
		return
	}
	p.failing.note("watch "+resource, err)
	if resource == objects && err != nil {
		p.mu.Lock()
		p.kindless = true // labels and conditions do not wait for it
		p.mu.Unlock()
		p.awake()
	}
}

// round writes what differs. It returns how long to wait for the next one, if
// there is something left to do.
func (p *Publisher) round(ctx context.Context, client *api) (again time.Duration, err error) {
	is, want, ready, err := p.situation()
	if err != nil || !ready {
		return 0, err
	}
	writes, clashes := differences(want, is, p.opt.Now())
	p.clash(ctx, client, is.node, clashes)
	writes = p.notRefused(writes, is)
	if len(writes) > 0 && !p.writes.TryAccept() {
		return writePeriod, nil
	}
	var errs []error
	for _, w := range writes {
		if err := p.write(ctx, client, is, w); err != nil {
			errs = append(errs, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Rounds++
	p.state.Labels, p.state.LabelsCut = len(want.labels), len(want.cut)
	if len(errs) == 0 && is.objects {
		p.state.LastSuccess = p.opt.Now()
	}
	return 0, errors.Join(errs...)
}

// situation is what there is and what is wanted. It is not ready until both
// are known.
func (p *Publisher) situation() (is found, want wanted, ready bool, err error) {
	node, there, synced := p.node.get()
	object, _, objects := p.object.get()
	if !synced {
		return is, want, false, nil
	}
	if !there {
		return is, want, false, &failure{failNoNode, fmt.Errorf("the cluster has no Node %s", p.opt.Node)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !objects && !p.kindless {
		return is, want, false, nil
	}
	is = found{node, object, objects}
	p.seed(func() truth { return published(is) })
	if !p.truth.seen {
		return is, want, false, nil
	}
	return is, p.truth.want(), true, nil
}

// published is the truth as the API server has it from a run before.
func published(is found) truth {
	t := truth{labels: held[struct{}]{}, conditions: held[Condition]{}, findings: held[v1alpha1.NodeFinding]{}}
	t.network = networkTruth{labels: held[struct{}]{}, conditions: held[Condition]{}}
	owned := ownersOf(is.node.ManagedFields)
	for key, value := range is.node.Labels {
		if strings.HasPrefix(key, Prefix) && ours(owned.labels[key]) {
			of := t.labels
			if strings.HasPrefix(key, networkPrefix) {
				of = t.network.labels
			}
			of[key] = said[struct{}]{value: value}
		}
	}
	reasons := ""
	if is.object != nil {
		reasons = is.object.Status.Reasons
		t.network.reports = is.object.Status.Networks
		t.pfs = held[[]v1alpha1.PhysicalFunction]{"pfs": {value: pfsValue(is.object.Status.PFs), of: is.object.Status.PFs}}
		for _, finding := range is.object.Status.Findings {
			key := finding.Area + "/" + finding.Check
			t.findings[key] = said[v1alpha1.NodeFinding]{value: findingValue(finding), of: finding}
			t.order = append(t.order, key)
		}
	}
	for i := range is.node.Status.Conditions {
		c := &is.node.Status.Conditions[i]
		if ours(owned.conditions[string(c.Type)]) {
			condition := Condition{Type: string(c.Type), Status: string(c.Status), Reason: c.Reason, Message: c.Message}
			if c.Type == VirtualizationReady {
				condition.reasons = reasons
			}
			of := t.conditions
			if c.Type == HostNetworkReady {
				of = t.network.conditions
			}
			of[condition.Type] = said[Condition]{value: condition.value(), of: condition}
		}
	}
	return t
}

// write makes one write, and keeps what the API server answers.
func (p *Publisher) write(ctx context.Context, client *api, is found, w write) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	object, err := client.apply(ctx, p.opt.Node, w)
	if apierrors.IsConflict(err) {
		p.refuse(w, is)
	}
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.state.Writes[w.what]++
	p.mu.Unlock()
	switch object := object.(type) {
	case *corev1.Node:
		p.node.put(object)
	case *v1alpha1.NodeVirtualization:
		p.object.put(object)
	}
	if w.what == writesConditions {
		for _, event := range transitions(is.node, object, p.opt.Now()) {
			p.failing.note("event", client.report(ctx, event))
		}
	}
	return nil
}

// clash says, once, what somebody else has made of the agent's fields.
func (p *Publisher) clash(ctx context.Context, client *api, node *corev1.Node, now []clash) {
	p.mu.Lock()
	fields := make(map[string]clash, len(now))
	var fresh []clash
	for _, c := range now {
		fields[c.field] = c
		if p.clashes[c.field] != c {
			fresh = append(fresh, c)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(p.clashes)) {
		if _, still := fields[field]; !still {
			p.opt.Log.Info("a field is no longer in conflict", "field", field)
		}
	}
	p.clashes = fields
	p.state.Conflicts += uint64(len(fresh))
	p.mu.Unlock()
	for _, c := range fresh {
		p.opt.Log.Warn("somebody else owns a field of the agent's; it is left to them", "field", c.field, "manager", c.manager, "theirs", c.theirs, "ours", c.ours)
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		p.failing.note("event", client.report(ctx, newEvent(node, corev1.EventTypeWarning, "FieldConflict", c.String(), p.opt.Now())))
		cancel()
	}
}

// refuse remembers an attempt that met a conflict which could not be seen
// beforehand: the same is not tried again on the same object.
func (p *Publisher) refuse(w write, is found) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Conflicts++
	p.refused[w.what] = attempt(w, is)
}

func (p *Publisher) notRefused(writes []write, is found) []write {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(writes, func(w write) bool { return p.refused[w.what] != "" && p.refused[w.what] == attempt(w, is) })
}

// attempt names a write on a state of its object.
func attempt(w write, is found) string {
	on := is.node.ResourceVersion
	if w.what == writesObject || w.what == writesStatus {
		on = ""
		if is.object != nil {
			on = is.object.ResourceVersion
		}
	}
	body, err := json.Marshal(w.body)
	if err != nil {
		return "" // it would have failed before
	}
	return on + " " + string(body)
}
