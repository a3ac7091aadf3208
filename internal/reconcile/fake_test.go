package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeHost keeps properties as files, so that it outlives a process as a
// kernel does. A value takes two writes to set, as real ones do.
type fakeHost struct {
	dir     string
	guard   func(Step) error
	broken  map[string]string // by key: "before", "between" or "after" the write
	stuck   map[string]bool   // by key: cannot be undone
	between func()            // called in the middle of each write
}

func (h *fakeHost) path(step Step) string {
	return filepath.Join(h.dir, strings.ReplaceAll(step.Key(), "/", "_"))
}

func (h *fakeHost) Guard(_ context.Context, step Step) error {
	if h.guard == nil {
		return nil
	}
	return h.guard(step)
}

func (h *fakeHost) Apply(_ context.Context, step Step) (json.RawMessage, error) {
	if h.broken[step.Key()] == "before" {
		return nil, errors.New("the kernel says no")
	}
	if err := h.set(step, json.RawMessage(`"half"`)); err != nil {
		return nil, err
	}
	if h.between != nil {
		h.between()
	}
	if h.broken[step.Key()] == "between" {
		return json.RawMessage(`"half"`), errors.New("the kernel says no in the middle")
	}
	if err := h.set(step, step.Want); err != nil {
		return nil, err
	}
	if h.broken[step.Key()] == "after" {
		return step.Want, errors.New("the kernel says no too late")
	}
	return h.get(step), nil
}

func (h *fakeHost) Undo(_ context.Context, step Step) error {
	if h.stuck[step.Key()] {
		return &Refusal{Guard: "in-use", Target: step.Target, Message: "somebody has it by now"}
	}
	return h.set(step, step.Was)
}

func (h *fakeHost) get(step Step) json.RawMessage {
	text, err := os.ReadFile(h.path(step))
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}

func (h *fakeHost) set(step Step, value json.RawMessage) error {
	if Same(value, nil) {
		err := os.Remove(h.path(step))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	}
	return os.WriteFile(h.path(step), compact(value), 0o600)
}

// plan moves the host to values by target; what is left out shall be nothing.
func (h *fakeHost) plan(want map[string]int) Plan {
	var p Plan
	targets := []string{"a", "b", "c", "d"}
	for _, target := range targets {
		step := Step{Kind: "fake/value", Target: target, Disruption: None, Policy: "test"}
		step.Was, step.Want = h.get(step), json.RawMessage("null")
		if value, wanted := want[target]; wanted {
			step.Want = Value(value)
		}
		step.Text = fmt.Sprintf("set %s from %s to %s", target, step.Was, step.Want)
		if !Same(step.Was, step.Want) {
			p.Steps = append(p.Steps, step)
		}
	}
	return p
}

// dump is the whole host in one line.
func (h *fakeHost) dump(t *testing.T) string {
	t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(h.dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, entry.Name()+"="+string(text))
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

const (
	dumpBefore = "fake_value a=1 fake_value b=2 fake_value c=3"
	dumpAfter  = "fake_value a=10 fake_value b=20 fake_value d=40"
)

func wantAfter() map[string]int { return map[string]int{"a": 10, "b": 20, "d": 40} }

// newHost returns a host at dumpBefore and the loop that drives it to wantAfter.
func newHost(t *testing.T) (*fakeHost, *Loop) {
	t.Helper()
	h := &fakeHost{dir: t.TempDir()}
	for target, value := range map[string]int{"a": 1, "b": 2, "c": 3} {
		if err := h.set(Step{Kind: "fake/value", Target: target}, Value(value)); err != nil {
			t.Fatal(err)
		}
	}
	return h, h.loop(t.TempDir())
}

func (h *fakeHost) loop(dir string) *Loop {
	return &Loop{
		Dir:     dir,
		Writers: map[string]Writer{"fake": h},
		Verify:  func(context.Context) (Plan, error) { return h.plan(wantAfter()), nil },
		Confirm: func(context.Context, Request) error { return nil },
		Now:     time.Now,
		Boot:    "boot-1",
	}
}
