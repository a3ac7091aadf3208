package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func request() Request { return Request{Who: "a test", Policies: []string{"test"}} }

func TestApplyEndsInTheNewState(t *testing.T) {
	h, loop := newHost(t)
	var audit []string
	loop.Audit = func(w Write) {
		audit = append(audit, w.Step.Target+" "+string(w.Before)+"->"+string(w.After))
		if w.Request.Who != "a test" || w.Request.Plan == "" || w.Transaction == "" || w.Err != nil {
			t.Errorf("audit: %+v", w)
		}
	}
	plan := h.plan(wantAfter())
	outcome, err := loop.Apply(t.Context(), request(), plan)
	if err != nil || outcome.Result != Kept {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	if got := h.dump(t); got != dumpAfter {
		t.Errorf("the host is at %s", got)
	}
	if diff := cmp.Diff([]string{"a 1->10", "b 2->20", "c 3->null", "d null->40"}, audit); diff != "" {
		t.Error(diff)
	}
	state, err := ReadState(loop.Dir)
	if err != nil || len(state.Originals) != 4 {
		t.Fatalf("got %+v, %v", state, err)
	}
	if c := state.Originals[2]; c.Key() != "fake/value c" || string(c.Was) != "3" || string(c.Want) != "null" {
		t.Errorf("original of c: %+v", c)
	}
	history, err := os.ReadDir(filepath.Join(loop.Dir, historyDir))
	if err != nil || len(history) != 1 || history[0].Name() != outcome.Transaction {
		t.Errorf("history: %v, %v", history, err)
	}

	outcome, err = loop.Apply(t.Context(), request(), h.plan(wantAfter()))
	if err != nil || outcome.Result != Converged || len(audit) != 4 {
		t.Errorf("once more: %+v, %v, %d writes", outcome, err, len(audit))
	}
}

func TestWhatIsBackIsOursNoMore(t *testing.T) {
	h, loop := newHost(t)
	if _, err := loop.Apply(t.Context(), request(), h.plan(wantAfter())); err != nil {
		t.Fatal(err)
	}
	before := map[string]int{"a": 1, "b": 2, "c": 3}
	loop.Verify = func(context.Context) (Plan, error) { return h.plan(before), nil }
	outcome, err := loop.Apply(t.Context(), request(), h.plan(before))
	if err != nil || outcome.Result != Kept || h.dump(t) != dumpBefore {
		t.Fatalf("got %+v, %v, %s", outcome, err, h.dump(t))
	}
	if state, err := ReadState(loop.Dir); err != nil || len(state.Originals) != 0 {
		t.Errorf("got %+v, %v", state, err)
	}
}

// TestFailureAtEveryStepUndoesAll fails each step at each of its moments.
func TestFailureAtEveryStepUndoesAll(t *testing.T) {
	for _, target := range []string{"a", "b", "c", "d"} {
		for _, moment := range []string{"before", "between", "after"} {
			t.Run(target+" "+moment, func(t *testing.T) {
				h, loop := newHost(t)
				h.broken = map[string]string{"fake/value " + target: moment}
				outcome, err := loop.Apply(t.Context(), request(), h.plan(wantAfter()))
				if err != nil || outcome.Result != Reverted || !strings.Contains(outcome.Cause, "the kernel says no") {
					t.Errorf("got %+v, %v", outcome, err)
				}
				if got := h.dump(t); got != dumpBefore {
					t.Errorf("the host is at %s", got)
				}
				if outcome, err := loop.Recover(t.Context()); err != nil || outcome.Result != Converged {
					t.Errorf("recover: %+v, %v", outcome, err)
				}
			})
		}
	}
}

func TestGuardStopsEachStep(t *testing.T) {
	for _, target := range []string{"a", "b", "c", "d"} {
		h, loop := newHost(t)
		touched := false
		h.guard = func(s Step) error {
			if s.Target == target {
				return &Refusal{Guard: "in-use", Target: s.Target, Message: "a VM has it", Evidence: []string{"/proc/7/fd/3"}}
			}
			return nil
		}
		loop.Audit = func(w Write) { touched = touched || w.Step.Target == target && w.Err == nil }
		outcome, err := loop.Apply(t.Context(), request(), h.plan(wantAfter()))
		if err != nil || outcome.Result != Reverted || touched || h.dump(t) != dumpBefore ||
			!strings.HasSuffix(outcome.Cause, "guard in-use: "+target+": a VM has it (/proc/7/fd/3)") {
			t.Errorf("%s: %+v, %v, touched %v, %s", target, outcome, err, touched, h.dump(t))
		}
	}
}

func TestConnectivityLostUndoesAndIsNotRetried(t *testing.T) {
	h, loop := newHost(t)
	loop.Confirm = func(_ context.Context, r Request) error {
		if string(r.Probes) != `["gateway"]` {
			t.Errorf("probes: %s", r.Probes)
		}
		return errors.New("gateway 10.0.0.1 does not answer")
	}
	asked := request()
	asked.Probes = json.RawMessage(`["gateway"]`)
	outcome, err := loop.Apply(t.Context(), asked, h.plan(wantAfter()))
	if err != nil || outcome.Result != Reverted || !outcome.CutOff || h.dump(t) != dumpBefore {
		t.Fatalf("got %+v, %v, %s", outcome, err, h.dump(t))
	}
	loop.Confirm = func(context.Context, Request) error { return nil }
	_, err = loop.Apply(t.Context(), asked, h.plan(wantAfter()))
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Guard != "connectivity" || h.dump(t) != dumpBefore {
		t.Errorf("again: %v, %s", err, h.dump(t))
	}
	asked.Again = true
	if outcome, err := loop.Apply(t.Context(), asked, h.plan(wantAfter())); err != nil || outcome.Result != Kept {
		t.Errorf("on demand: %+v, %v", outcome, err)
	}
}

func TestWhatVerifyFindsIsUndone(t *testing.T) {
	h, loop := newHost(t)
	loop.Verify = func(context.Context) (Plan, error) { return h.plan(map[string]int{"a": 11, "b": 20, "d": 40}), nil }
	outcome, err := loop.Apply(t.Context(), request(), h.plan(wantAfter()))
	if err != nil || outcome.Result != Reverted || !strings.HasSuffix(outcome.Cause, "still there is to do: set a from 10 to 11") || h.dump(t) != dumpBefore {
		t.Errorf("got %+v, %v, %s", outcome, err, h.dump(t))
	}
}

func TestStoppedAgentUndoes(t *testing.T) {
	h, loop := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	h.guard = func(s Step) error {
		if s.Target == "b" {
			cancel()
		}
		return nil
	}
	outcome, err := loop.Apply(ctx, request(), h.plan(wantAfter()))
	if err != nil || outcome.Result != Reverted || h.dump(t) != dumpBefore {
		t.Errorf("got %+v, %v, %s", outcome, err, h.dump(t))
	}
}

func TestStuckUndoIsTriedAgain(t *testing.T) {
	h, loop := newHost(t)
	h.broken = map[string]string{"fake/value d": "before"}
	h.stuck = map[string]bool{"fake/value b": true}
	outcome, err := loop.Apply(t.Context(), request(), h.plan(wantAfter()))
	if err != nil || outcome.Result != Stuck || len(outcome.Left) != 1 {
		t.Fatalf("got %+v, %v", outcome, err)
	}
	if _, err := loop.Apply(t.Context(), request(), h.plan(wantAfter())); !errors.Is(err, ErrUnfinished) {
		t.Errorf("apply over it: %v", err)
	}
	if outcome, err := loop.Recover(t.Context()); err != nil || outcome.Result != Stuck {
		t.Errorf("recover: %+v, %v", outcome, err)
	}
	h.stuck = nil
	if outcome, err := loop.Recover(t.Context()); err != nil || outcome.Result != Reverted || h.dump(t) != dumpBefore {
		t.Errorf("recover: %+v, %v, %s", outcome, err, h.dump(t))
	}
}

func TestRefusedPlanIsNotTried(t *testing.T) {
	h, loop := newHost(t)
	plan := h.plan(wantAfter())
	plan.Refusals = []Refusal{{Guard: "uplink", Target: "a", Message: "the default route leaves through it"}}
	if _, err := loop.Apply(t.Context(), request(), plan); err == nil || h.dump(t) != dumpBefore {
		t.Errorf("got %v, %s", err, h.dump(t))
	}
	unclassed := h.plan(wantAfter())
	unclassed.Steps[2].Disruption = ""
	if _, err := loop.Apply(t.Context(), request(), unclassed); err == nil || h.dump(t) != dumpBefore {
		t.Errorf("got %v, %s", err, h.dump(t))
	}
}

func TestOneAtATime(t *testing.T) {
	h, loop := newHost(t)
	h.guard = func(Step) error {
		if _, err := h.loop(loop.Dir).Recover(t.Context()); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one got %v", err)
		}
		return nil
	}
	if outcome, err := loop.Apply(t.Context(), request(), h.plan(wantAfter())); err != nil || outcome.Result != Kept {
		t.Errorf("got %+v, %v", outcome, err)
	}
}

func TestRestrict(t *testing.T) {
	h, _ := newHost(t)
	plan := h.plan(wantAfter())
	plan.Steps[1].Disruption, plan.Steps[1].Hits = VFRecreate, []string{"pod vms/db"}
	allowed := plan.Restrict(func(string) bool { return true })
	if len(allowed.Refusals) != 0 || !strings.Contains(plan.Steps[1].String(), "[vf-recreate] hits pod vms/db") {
		t.Errorf("got %+v, %s", allowed.Refusals, plan.Steps[1])
	}
	got := plan.Restrict(func(policy string) bool { return policy != "test" }).Refusals
	want := []Refusal{{
		Guard: "disruption", Target: "b", Policy: "test", Message: "set b from 2 to 20: it needs disruption: Allow in the policy",
		Evidence: []string{"disruption: vf-recreate", "hits pod vms/db"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if a, b := plan.Hash(), h.plan(wantAfter()).Hash(); a == b || len(a) != 12 {
		t.Errorf("hashes %s and %s", a, b)
	}
}
