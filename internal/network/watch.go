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
	"sync"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
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

// Watch applies policies when they are new, or the machine is, and looks from
// then on whether they hold.
type Watch struct {
	Network  *Network
	Policies func() ([]v1alpha1.HostNetwork, error) // those in force now
	Interval time.Duration
	Repair   bool // bring back what has drifted, if that disturbs nobody
	// Offer is told, after each look, what the virtual functions shall be;
	// nil: nobody listens.
	Offer func(specs []sriov.Spec)

	mu     sync.Mutex
	status Status
}

// applied is what was carried out last, kept over restarts: what is the same
// is not carried out again, and only looked at.
type applied struct {
	Boot     string          `json:"boot"`
	Policies json.RawMessage `json:"policies"`
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
	tried := ""
	for {
		tried = w.round(ctx, tried)
		ready()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round applies what is new, once, and looks at the host. It returns the
// policies that were tried.
func (w *Watch) round(ctx context.Context, tried string) string {
	n := w.Network
	policies, err := w.Policies()
	if err == nil {
		policies, _, err = n.selected(policies)
	}
	if err != nil {
		w.fail(err)
		return tried
	}
	boot, err := n.boot()
	if err != nil {
		w.fail(err)
		return tried
	}
	now := applied{Boot: boot, Policies: reconcile.Value(policies)}
	last, err := n.lastApplied()
	if err != nil {
		w.fail(err)
		return tried
	}
	text := string(reconcile.Value(now))
	if text != string(reconcile.Value(last)) && text != tried && (len(policies) > 0 || len(last.Policies) > 0) {
		if w.apply(ctx, policies) {
			err = n.keepApplied(now)
		}
		tried = text
	}
	view, planErr := n.Plan(ctx, policies)
	if err = errors.Join(err, planErr); err != nil {
		w.fail(err)
		return tried
	}
	w.look(view)
	if w.Offer != nil {
		w.Offer(view.Specs)
	}
	if w.Repair && len(view.Plan.Steps) > 0 && len(view.Plan.Refusals) == 0 && harmless(view.Plan) {
		w.apply(ctx, policies)
		if view, err = n.Plan(ctx, policies); err == nil {
			w.look(view)
		}
	}
	return tried
}

func harmless(plan reconcile.Plan) bool {
	for _, step := range plan.Steps {
		if step.Disruption != reconcile.None {
			return false
		}
	}
	return true
}

// apply carries policies out, and reports whether the host is as they want it.
func (w *Watch) apply(ctx context.Context, policies []v1alpha1.HostNetwork) bool {
	outcome, err := w.Network.Apply(ctx, Ask{Who: "run"}, policies)
	log := w.Network.Log
	if err != nil {
		log.Error("network policies not applied; nothing was changed", "error", err)
		w.note(func(s *Status) { s.Held = err.Error() })
		return false
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
		return true
	}
	log.Error("network change undone", "result", string(outcome.Result), "transaction", outcome.Transaction, "cause", outcome.Cause, "left", outcome.Left)
	return false
}

// look notes what has drifted.
func (w *Watch) look(view View) {
	w.note(func(s *Status) {
		drifted := len(view.Plan.Steps) > 0
		if drifted && s.Plan != view.Plan.Hash() {
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

func (w *Watch) fail(err error) {
	w.note(func(s *Status) {
		if s.Error != err.Error() {
			w.Network.Log.Error("the network cannot be looked at", "error", err)
		}
		s.Error = err.Error()
	})
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
