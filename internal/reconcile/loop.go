package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Loop carries plans out on one host. Several may share a directory: only one
// of them works at a time, the others get [ErrBusy].
type Loop struct {
	Dir     string            // where journal and state are kept
	Writers map[string]Writer // by [Step.Writer]
	// Verify looks at the host anew and plans again: nothing may be left.
	Verify func(ctx context.Context) (Plan, error)
	// Confirm returns nil when the node can be reached, or an error when it
	// could not be for as long as the request allows.
	Confirm func(ctx context.Context, request Request) error
	Audit   func(Write) // nil: nobody listens
	Now     func() time.Time
	Boot    string // names this run of the kernel

	notice func(*Record) // of tests: a record is on the disk
}

// Result is how an attempt has ended.
type Result string

// The results. Only Stuck leaves the host between two states.
const (
	Converged Result = "converged" // there was nothing to do
	Kept      Result = "applied"   // the host is as the plan wants it
	Reverted  Result = "restored"  // the host is as it was before
	Stuck     Result = "stuck"     // something could not be undone; it is tried again at the next start
)

// Outcome says how an attempt has ended, and why.
type Outcome struct {
	Result      Result   `json:"result"`
	Transaction string   `json:"transaction,omitempty"`
	Request     Request  `json:"request,omitzero"`
	Steps       []Step   `json:"steps,omitempty"` // those that the attempt was about
	Cause       string   `json:"cause,omitempty"` // of Reverted and Stuck
	Left        []string `json:"left,omitempty"`  // of Stuck: what could not be undone, and why
	CutOff      bool     `json:"cutOff,omitempty"`
}

// transaction is an attempt under way.
type transaction struct {
	*Loop
	journal *journal
	id      string
	request Request
	steps   []Step
	begun   []bool // written to the host, perhaps
	undone  []bool
}

// ErrUnfinished says that an attempt before has to be ended by Recover first.
var ErrUnfinished = errors.New("an earlier change is not finished")

// Recover ends what a run before has left unfinished: what was kept is kept,
// what was made and can be confirmed too, all else is undone. The result is
// Converged when there was nothing.
func (l *Loop) Recover(ctx context.Context) (outcome Outcome, err error) {
	j, err := l.open()
	if err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	records, err := j.read()
	if err != nil {
		return Outcome{}, err
	}
	if len(records) == 0 {
		if j.file != nil {
			err = j.drop() // an intent that was never acknowledged: nothing was written
		}
		return Outcome{Result: Converged}, err
	}
	t := l.resume(j, records)
	last := records[len(records)-1]
	switch {
	case last.Event == Committed:
		return t.outcome(Kept, nil), t.settle()
	case last.Event == Restored:
		return t.outcome(Reverted, errors.New("the agent was ended after it had undone everything")), j.finish(t.id)
	case last.Event == Applied && t.request.Boot == l.Boot:
		if err := l.Confirm(ctx, t.request); err != nil {
			return t.undo(ctx, fmt.Errorf("the agent was ended before the change was confirmed, and now: %w", err), true)
		}
		return t.commit(ctx)
	}
	return t.undo(ctx, errors.New("the agent or the machine was ended in the middle of the change"), false)
}

func (l *Loop) open() (*journal, error) {
	j, err := openJournal(l.Dir)
	if err != nil {
		return nil, err
	}
	j.notice = l.notice
	return j, nil
}

// resume reads from the records how far a transaction has come.
func (l *Loop) resume(j *journal, records []Record) *transaction {
	intent := records[0]
	t := l.transaction(j, intent.Transaction, *intent.Request, intent.Steps)
	for _, r := range records {
		if r.Step == nil {
			continue
		}
		switch r.Event {
		case Begin:
			t.begun[*r.Step] = true
		case Refused:
			t.begun[*r.Step] = false
		case Undone:
			t.undone[*r.Step] = true
		}
	}
	return t
}

func (l *Loop) transaction(j *journal, id string, request Request, steps []Step) *transaction {
	return &transaction{Loop: l, journal: j, id: id, request: request, steps: steps, begun: make([]bool, len(steps)), undone: make([]bool, len(steps))}
}

// Apply carries out a plan, or nothing of it. An error says that nothing was
// tried: a guard refused the plan, or the journal cannot be written.
func (l *Loop) Apply(ctx context.Context, request Request, plan Plan) (outcome Outcome, err error) {
	if err := refused(plan); err != nil {
		return Outcome{}, err
	}
	j, err := l.open()
	if err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, j.close()) }()
	if records, err := j.read(); err != nil || records != nil {
		return Outcome{}, errors.Join(err, ErrUnfinished)
	}
	state, err := ReadState(l.Dir)
	if err != nil {
		return Outcome{}, err
	}
	if len(plan.Forget) > 0 {
		if err := state.forget(plan.Forget).write(l.Dir); err != nil {
			return Outcome{}, err
		}
	}
	if len(plan.Steps) == 0 {
		return Outcome{Result: Converged, Request: request}, nil
	}
	request.Plan, request.Boot = plan.Hash(), l.Boot
	if slices.Contains(state.Cut, request.Plan) && !request.Again {
		return Outcome{}, &Refusal{Guard: "connectivity", Target: "plan " + request.Plan, Message: "the node could not be reached after the same plan before; change the policy, or name the plan to try it again"}
	}
	id := l.Now().UTC().Format("20060102T150405.000000000Z")
	t := l.transaction(j, id, request, plan.Steps)
	if err := j.begin(&Record{Time: l.Now().UTC(), Event: Intent, Transaction: id, Request: &request, Steps: plan.Steps}); err != nil {
		return Outcome{}, fmt.Errorf("nothing was changed: %w", err)
	}
	if cause := t.make(ctx); cause != nil {
		return t.undo(ctx, cause, false)
	}
	if err := l.Confirm(ctx, request); err != nil {
		return t.undo(ctx, err, true)
	}
	return t.commit(ctx)
}

// refused returns why a plan must not be tried at all.
func refused(plan Plan) error {
	var bad []error
	for i := range plan.Refusals {
		bad = append(bad, &plan.Refusals[i])
	}
	for _, step := range plan.Steps {
		if !slices.Contains([]Disruption{None, LinkFlap, VFRecreate}, step.Disruption) {
			bad = append(bad, fmt.Errorf("step %q does not say whom it disrupts", step.Text))
		}
	}
	return errors.Join(bad...)
}

// make makes all steps and looks at them again; an error says that it has to
// be undone.
func (t *transaction) make(ctx context.Context) error {
	for i := range t.steps {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped before step %d of %d: %w", i+1, len(t.steps), context.Cause(ctx))
		}
		if err := t.step(ctx, i); err != nil {
			return fmt.Errorf("step %d of %d, %s: %w", i+1, len(t.steps), t.steps[i].Text, err)
		}
	}
	plan, err := t.Verify(ctx)
	if err != nil {
		return fmt.Errorf("look at the result: %w", err)
	}
	if !plan.Converged() {
		var left []string
		for _, step := range plan.Steps {
			left = append(left, step.Text)
		}
		for i := range plan.Refusals {
			left = append(left, plan.Refusals[i].Error())
		}
		return fmt.Errorf("all steps were made, and still there is to do: %s", strings.Join(left, "; "))
	}
	return t.note(Applied, nil)
}

// step makes one step, between two records.
func (t *transaction) step(ctx context.Context, i int) error {
	step := t.steps[i]
	writer := t.Writers[step.Writer()]
	if writer == nil {
		return fmt.Errorf("nobody knows how to make %s", step.Kind)
	}
	if err := t.note(Begin, &Record{Step: &i}); err != nil {
		return err
	}
	if err := writer.Guard(ctx, step); err != nil {
		t.audit(step, false, nil, err)
		return errors.Join(err, t.note(Refused, &Record{Step: &i, Error: err.Error()}))
	}
	t.begun[i] = true
	now, err := writer.Apply(ctx, step)
	t.audit(step, false, now, err)
	if err != nil {
		return errors.Join(err, t.note(Failed, &Record{Step: &i, Before: step.Was, After: now, Error: err.Error()}))
	}
	return t.note(Done, &Record{Step: &i, Before: step.Was, After: now})
}

// undo takes back what was begun, in reverse order. It goes on whatever fails:
// neither a stopped agent nor a full disk keeps the host between two states.
func (t *transaction) undo(ctx context.Context, cause error, cutOff bool) (Outcome, error) {
	ctx = context.WithoutCancel(ctx)
	var left []string
	for i := len(t.steps) - 1; i >= 0; i-- {
		if !t.begun[i] || t.undone[i] {
			continue
		}
		step := t.steps[i]
		err := errors.New("nobody knows how to undo " + step.Kind)
		if writer := t.Writers[step.Writer()]; writer != nil {
			err = writer.Undo(ctx, step)
		}
		t.audit(step, true, step.Was, err)
		if err != nil {
			left = append(left, fmt.Sprintf("%s: %v", step.Text, err))
			_ = t.note(NotUndone, &Record{Step: &i, Error: err.Error()}) // the next start tries it again either way
			continue
		}
		_ = t.note(Undone, &Record{Step: &i, After: step.Was}) // to undo twice does no harm
	}
	var err error
	if cutOff {
		err = t.remember()
	}
	if left != nil {
		outcome := t.outcome(Stuck, cause)
		outcome.Left, outcome.CutOff = left, cutOff
		return outcome, err
	}
	outcome := t.outcome(Reverted, cause)
	outcome.CutOff = cutOff
	if noteErr := t.note(Restored, &Record{Error: cause.Error()}); noteErr != nil {
		return outcome, errors.Join(err, t.journal.drop())
	}
	return outcome, errors.Join(err, t.journal.finish(t.id))
}

// remember makes sure that the same plan is not tried again by itself.
func (t *transaction) remember() error {
	state, err := ReadState(t.Dir)
	if err != nil {
		return err
	}
	return state.cut(t.request.Plan).write(t.Dir)
}

// commit keeps the new state. What can fail is done before the record that
// decides.
func (t *transaction) commit(ctx context.Context) (Outcome, error) {
	state, err := ReadState(t.Dir)
	if err != nil {
		return t.undo(ctx, err, false)
	}
	put, err := state.fold(t.id, t.steps).prepare(t.Dir)
	if err != nil {
		return t.undo(ctx, err, false)
	}
	if err := t.note(Committed, nil); err != nil {
		return t.undo(ctx, err, false)
	}
	return t.outcome(Kept, nil), errors.Join(put(), t.journal.finish(t.id))
}

// settle puts the state in its place after a commit that was cut short.
func (t *transaction) settle() error {
	state, err := ReadState(t.Dir)
	if err != nil {
		return err
	}
	if err := state.fold(t.id, t.steps).write(t.Dir); err != nil {
		return err
	}
	return t.journal.finish(t.id)
}

func (t *transaction) note(event Event, r *Record) error {
	if r == nil {
		r = new(Record)
	}
	r.Time, r.Event, r.Transaction = t.Now().UTC(), event, t.id
	return t.journal.append(r)
}

func (t *transaction) outcome(result Result, cause error) Outcome {
	outcome := Outcome{Result: result, Transaction: t.id, Request: t.request, Steps: t.steps}
	if cause != nil {
		outcome.Cause = cause.Error()
	}
	return outcome
}

func (t *transaction) audit(step Step, undo bool, after json.RawMessage, err error) {
	if t.Audit == nil {
		return
	}
	write := Write{Request: t.request, Transaction: t.id, Step: step, Undo: undo, Before: step.Was, After: after, Err: err}
	if undo {
		write.Before = step.Want
	}
	t.Audit(write)
}
