package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// Status is what is known of the host's network, for metrics and reports.
type Status struct {
	Checked   time.Time           `json:"checked"`            // the last look that succeeded
	Policies  []string            `json:"policies,omitempty"` // names of those that are for this node
	Drift     []string            `json:"drift,omitempty"`    // steps that bring back what the policies want
	Refusals  []reconcile.Refusal `json:"refusals,omitempty"` // what the policies want, and a guard forbids
	Plan      string              `json:"plan,omitempty"`     // hash of what is to be done
	Error     string              `json:"error,omitempty"`    // why this is not known
	Held      string              `json:"held,omitempty"`     // why the last attempt to change something was not made
	Last      reconcile.Outcome   `json:"last,omitzero"`      // of the last attempt that was
	Plans     int                 `json:"plans"`              // made since the start
	Applies   int                 `json:"applies"`            // carried out since the start
	Rollbacks int                 `json:"rollbacks"`          // undone since the start
	Pools     []PoolState         `json:"pools,omitempty"`
}

// PoolState counts the virtual functions of a pool, or of none.
type PoolState struct {
	PF    string `json:"pf"` // its network device; its address, when it has none here
	Pool  string `json:"pool,omitempty"`
	State string `json:"state"` // free, used, or driverless
	Count int    `json:"count"`
}

// ErrUnknown says that the policies are not known, or not yet. What was applied
// last holds on.
var ErrUnknown = errors.New("the policies are not known yet")

// Watch applies policies when they are new, or the machine is, and looks from
// then on whether they hold.
type Watch struct {
	Network  *Network
	Policies func() ([]v1alpha1.HostNetwork, error) // those in force now
	// Permit says whether a policy's disruptive steps may be made now, as part
	// of one plan; restart: these policies held before the machine was started
	// anew. nil: spec.disruption decides.
	Permit   func(policy *v1alpha1.HostNetwork, plan string, restart bool) bool
	Interval time.Duration
	Wake     <-chan struct{} // look now; nil: at every interval only
	Repair   bool            // bring back what has drifted, if that disturbs nobody
	// Offer is told, after each look, what the virtual functions shall be;
	// nil: nobody listens.
	Offer func(specs []sriov.Spec)
	// Looked is told what each look has shown; nil: nobody listens.
	Looked func(Look)

	// Of the task that runs.
	wanted  string // what was to be applied the last time that something was
	tried   string // how that was tried
	refused string // the plan of that time, if nothing of it was made
	cause   error  // and why

	mu     sync.Mutex
	status Status
}

// Look is what a look at the host has shown.
type Look struct {
	View  View
	Err   error             // why it has shown nothing
	Held  bool              // whether the host was once as these policies want it
	Cause error             // why nothing was made of what was to be applied
	Last  reconcile.Outcome // of the last attempt to change something
}

// applied is what was carried out last, kept over restarts: what is the same
// is not carried out again, and only looked at.
type applied struct {
	Boot     string                 `json:"boot"`
	Policies []v1alpha1.HostNetwork `json:"policies"`
}

const appliedFile = "applied.json"

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context, ready func()) error {
	outcome, err := w.Network.Recover(ctx)
	if err != nil {
		return err
	}
	if outcome.Result != reconcile.Converged {
		w.note(func(s *Status) { s.Last = outcome })
	}
	tick := time.NewTicker(w.Interval)
	defer tick.Stop()
	for {
		look := w.round(ctx)
		if w.Looked != nil {
			w.Looked(look)
		}
		ready()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.Wake:
		}
	}
}

// round applies what is new, once, and looks at the host.
func (w *Watch) round(ctx context.Context) Look {
	n := w.Network
	boot, err := n.boot()
	if err != nil {
		return w.fail(err)
	}
	last, err := n.lastApplied()
	if err != nil {
		return w.fail(err)
	}
	policies, err := w.Policies()
	if errors.Is(err, ErrUnknown) && len(last.Policies) > 0 {
		policies, err = last.Policies, nil
	}
	if err == nil {
		policies, _, err = n.selected(policies)
	}
	if err != nil {
		return w.fail(err)
	}
	now := record(boot, policies)
	same := wants(now) == wants(last)
	held := same && boot == last.Boot
	if !held && (len(policies) > 0 || len(last.Policies) > 0) {
		held, err = w.applyNew(ctx, now, policies, same)
	} else if string(reconcile.Value(now)) != string(reconcile.Value(last)) && len(policies) > 0 {
		err = n.keepApplied(now)
	}
	view, planErr := n.Plan(ctx, w.withhold(policies))
	if err = errors.Join(err, planErr); err != nil {
		return w.fail(err)
	}
	w.look(view, held)
	if w.Offer != nil {
		w.Offer(view.Specs)
	}
	if w.Repair && held && len(view.Plan.Steps) > 0 && len(view.Plan.Refusals) == 0 && harmless(view.Plan) {
		_ = w.apply(ctx, Ask{Who: "run"}, w.withhold(policies)) // it is looked at again in any case
		if view, err = n.Plan(ctx, w.withhold(policies)); err != nil {
			return w.fail(err)
		}
		w.look(view, held)
	}
	if w.refused != "" && w.refused != fingerprint(view.Plan) {
		w.forget() // the host has changed: what was refused may be possible
	}
	look := Look{View: view, Held: held, Last: w.Status().Last}
	if !held {
		look.Cause = w.cause
	}
	return look
}

// applyNew carries out policies that do not hold yet, unless the same was
// tried before, and reports whether they hold now.
func (w *Watch) applyNew(ctx context.Context, now applied, policies []v1alpha1.HostNetwork, restart bool) (held bool, err error) {
	words := []string{wants(now), now.Boot}
	for i := range policies {
		words = append(words, strconv.FormatInt(policies[i].Generation, 10))
	}
	if wanted := strings.Join(words, " "); wanted != w.wanted {
		w.wanted = wanted
		w.forget()
	}
	ask := Ask{Who: "run"}
	if w.Permit != nil {
		view, err := w.Network.Plan(ctx, policies)
		if err != nil {
			return false, err
		}
		policies, ask.Plan = w.permitted(policies, view.Plan.Hash(), restart)
		steps := reconcile.Plan{Steps: view.Plan.Steps}
		if len(steps.Restrict(hostnet.Disruptive(policies)).Refusals) > 0 {
			return false, nil // it waits, and that is no failure
		}
	}
	how := []string{"with", ask.Plan}
	for i := range policies {
		how = append(how, string(policies[i].Spec.Disruption))
	}
	attempt := strings.Join(how, " ")
	if attempt == w.tried {
		return false, nil
	}
	w.forget()
	w.tried = attempt
	err = w.apply(ctx, ask, policies)
	switch {
	case err == nil:
		return true, w.Network.keepApplied(now)
	case errors.Is(err, errUndone):
		return false, nil
	}
	w.cause = err
	view, err := w.Network.Plan(ctx, w.withhold(policies))
	w.refused = fingerprint(view.Plan)
	return false, err
}

// forget forgets what was tried, so that it may be tried again.
func (w *Watch) forget() { w.tried, w.refused, w.cause = "", "", nil }

// withhold lets nothing disrupt without a permit.
func (w *Watch) withhold(policies []v1alpha1.HostNetwork) []v1alpha1.HostNetwork {
	if w.Permit == nil {
		return policies
	}
	all := slices.Clone(policies)
	for i := range all {
		all[i].Spec.Disruption = v1alpha1.DisruptionNone
	}
	return all
}

// permitted lets disrupt what may now, as part of this plan and of no other.
func (w *Watch) permitted(policies []v1alpha1.HostNetwork, plan string, restart bool) (all []v1alpha1.HostNetwork, only string) {
	all = w.withhold(policies)
	for i := range all {
		if w.Permit(&policies[i], plan, restart) {
			all[i].Spec.Disruption, only = v1alpha1.DisruptionAllow, plan
		}
	}
	return all, only
}

// record is what is kept of policies: not what a cluster adds to them.
func record(boot string, policies []v1alpha1.HostNetwork) applied {
	kept := applied{Boot: boot}
	for i := range policies {
		policy := v1alpha1.HostNetwork{TypeMeta: policies[i].TypeMeta, Spec: policies[i].Spec}
		policy.Name = policies[i].Name
		kept.Policies = append(kept.Policies, policy)
	}
	return kept
}

// wants is what policies want of a host: neither what they allow for it, nor
// what they offer on it.
func wants(a applied) string {
	bare := slices.Clone(a.Policies)
	for i := range bare {
		spec := &bare[i].Spec
		spec.Disruption, spec.ApprovedPlans, spec.MaxUnavailable, spec.NodeSelector, spec.Attachments = "", nil, nil, nil, nil
	}
	return string(reconcile.Value(bare))
}

// fingerprint tells plans apart, and what is refused of them.
func fingerprint(plan reconcile.Plan) string {
	return plan.Hash() + string(reconcile.Value(plan.Refusals))
}

func harmless(plan reconcile.Plan) bool {
	for _, step := range plan.Steps {
		if step.Disruption != reconcile.None {
			return false
		}
	}
	return true
}

// errUndone says that a change was tried, and undone.
var errUndone = errors.New("the change was undone")

// apply carries policies out. An error says why the host is not as they want it.
func (w *Watch) apply(ctx context.Context, ask Ask, policies []v1alpha1.HostNetwork) error {
	log := w.Network.Log
	outcome, err := w.Network.Apply(ctx, ask, policies)
	if err != nil {
		log.Error("network policies not applied; nothing was changed", "error", err)
		w.note(func(s *Status) { s.Held = err.Error() })
		return err
	}
	w.note(func(s *Status) {
		s.Held, s.Last = "", outcome
		switch outcome.Result {
		case reconcile.Kept:
			s.Applies++
		case reconcile.Reverted, reconcile.Stuck:
			s.Rollbacks++
		}
	})
	if outcome.Result == reconcile.Kept || outcome.Result == reconcile.Converged {
		log.Info("network policies hold", "result", string(outcome.Result), "transaction", outcome.Transaction)
		return nil
	}
	log.Error("network change undone", "result", string(outcome.Result), "transaction", outcome.Transaction, "cause", outcome.Cause, "left", outcome.Left)
	return fmt.Errorf("%w: %s", errUndone, outcome.Cause)
}

// look notes what has drifted.
func (w *Watch) look(view View, held bool) {
	w.note(func(s *Status) {
		drifted := len(view.Plan.Steps) > 0
		if drifted && held && s.Plan != view.Plan.Hash() {
			w.Network.Log.Warn("the network has drifted from its policies", "plan", view.Plan.Hash(), "first", view.Plan.Steps[0].Text, "steps", len(view.Plan.Steps))
		}
		s.Checked, s.Error, s.Drift, s.Refusals, s.Plan = w.Network.Now(), "", nil, view.Plan.Refusals, ""
		s.Policies = nil
		for i := range view.Policies {
			s.Policies = append(s.Policies, view.Policies[i].Name)
		}
		for _, step := range view.Plan.Steps {
			s.Drift = append(s.Drift, step.Text)
		}
		if drifted {
			s.Plan = view.Plan.Hash()
		}
		s.Plans++
		s.Pools = view.Pools()
	})
}

func (w *Watch) fail(err error) Look {
	w.note(func(s *Status) {
		switch {
		case s.Error == err.Error():
		case errors.Is(err, ErrUnknown):
			w.Network.Log.Info("the network waits for its policies", "error", err)
		default:
			w.Network.Log.Error("the network cannot be looked at", "error", err)
		}
		s.Error = err.Error()
	})
	return Look{Err: err, Last: w.Status().Last}
}

func (w *Watch) note(change func(*Status)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.status)
}

// Status returns what is known now.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

func (n *Network) lastApplied() (applied, error) {
	var last applied
	data, err := os.ReadFile(filepath.Join(n.Dir, appliedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return last, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &last)
	}
	if err != nil {
		return last, fmt.Errorf("read what was applied last: %w", err)
	}
	return last, nil
}

func (n *Network) keepApplied(now applied) error {
	file := filepath.Join(n.Dir, appliedFile)
	if err := os.WriteFile(file+".next", reconcile.Value(now), 0o600); err != nil {
		return fmt.Errorf("write what was applied: %w", err)
	}
	if err := os.Rename(file+".next", file); err != nil {
		return fmt.Errorf("write what was applied: %w", err)
	}
	return nil
}

// Pools counts virtual functions by pool and state.
func (v View) Pools() []PoolState {
	var all []PoolState
	for _, pf := range v.VFs.PFs {
		pools := make(map[int]string)
		for _, policy := range v.Policies {
			for i := range policy.Spec.Interfaces {
				in := &policy.Spec.Interfaces[i]
				if in.SRIOV == nil || !v.isCard(policy.Name, in.Name, pf.Address) {
					continue
				}
				for _, pool := range in.SRIOV.Pools {
					indices, _ := v1alpha1.ParseIndices(pool.VFs) // validated
					for _, index := range indices {
						pools[index] = pool.Name
					}
				}
			}
		}
		for i := range pf.VFs {
			vf := &pf.VFs[i]
			state := "free"
			switch {
			case len(vf.Users) > 0:
				state = "used"
			case vf.Driver == "":
				state = "driverless"
			}
			all = count(all, PoolState{PF: cmp.Or(pf.Netdev(), pf.Address), Pool: pools[vf.Index], State: state})
		}
	}
	return all
}

func (v View) isCard(policy, name, address string) bool {
	for _, card := range v.Cards {
		if card.Policy == policy && card.Interface.Name == name {
			return card.PCIAddress == address
		}
	}
	return false
}

func count(all []PoolState, of PoolState) []PoolState {
	for i := range all {
		if have := all[i]; have.PF == of.PF && have.Pool == of.Pool && have.State == of.State {
			all[i].Count++
			return all
		}
	}
	of.Count = 1
	return append(all, of)
}
