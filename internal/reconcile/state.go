package reconcile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const (
	stateFile   = "state.json"
	journalFile = "journal"
	lockFile    = "lock"
	historyDir  = "history"

	stateVersion = 1
	mostHistory  = 20 // finished transactions that are kept to be looked at
	mostCut      = 32 // plans that are remembered for having cut the node off
)

// State is what is known of the host beyond what can be seen on it.
type State struct {
	Version int `json:"version"`
	// Last is the last transaction that is folded into this state.
	Last string `json:"last,omitempty"`
	// Originals has a step for each property that is ours, in the order in
	// which they became ours: Was is what was there before the first change,
	// Want what we made of it.
	Originals []Step `json:"originals,omitempty"`
	// Cut has the hashes of plans after which the node could not be reached.
	Cut []string `json:"cut,omitempty"`
}

// ReadState returns the state that is kept in a directory. There need not be any.
func ReadState(dir string) (State, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return State{Version: stateVersion}, nil
	case err != nil:
		return State{}, fmt.Errorf("read state: %w", err)
	}
	var state State
	if err := json.Unmarshal(data, &state); err != nil {
		return State{}, fmt.Errorf("read state %s: %w", filepath.Join(dir, stateFile), err)
	}
	if state.Version != stateVersion {
		return State{}, fmt.Errorf("read state %s: version %d, this agent knows version %d", filepath.Join(dir, stateFile), state.Version, stateVersion)
	}
	return state, nil
}

// fold takes in the steps of a transaction. To do so twice changes nothing.
func (s State) fold(transaction string, steps []Step) State {
	if s.Last == transaction {
		return s
	}
	s.Last = transaction
	s.Originals = slices.Clone(s.Originals)
	at := make(map[string]int, len(s.Originals)+len(steps)) // by key; they may be thousands
	for i, original := range s.Originals {
		at[original.Key()] = i
	}
	for _, step := range steps {
		key := step.Key()
		i, ours := at[key]
		if !ours {
			at[key] = len(s.Originals)
			step.Hits, step.Text = nil, ""
			s.Originals = append(s.Originals, step)
			continue
		}
		s.Originals[i].Want, s.Originals[i].Policy, s.Originals[i].Target = step.Want, step.Policy, step.Target
	}
	s.Originals = slices.DeleteFunc(s.Originals, func(o Step) bool { return Same(o.Was, o.Want) })
	return s
}

// forget drops what is back without us.
func (s State) forget(keys []string) State {
	gone := make(map[string]bool, len(keys))
	for _, key := range keys {
		gone[key] = true
	}
	s.Originals = slices.DeleteFunc(slices.Clone(s.Originals), func(o Step) bool { return gone[o.Key()] })
	return s
}

// cut remembers a plan that must not be tried again.
func (s State) cut(plan string) State {
	if plan == "" || slices.Contains(s.Cut, plan) {
		return s
	}
	s.Cut = append(slices.Clone(s.Cut), plan)
	s.Cut = s.Cut[max(0, len(s.Cut)-mostCut):]
	return s
}

// prepare writes a state beside the one in force, and returns what puts it in
// its place. All that can fail for want of space has happened then.
func (s State) prepare(dir string) (commit func() error, err error) {
	s.Version = stateVersion
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	next := filepath.Join(dir, stateFile+".next")
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write state: %w", err)
	}
	_, err = file.Write(append(text, '\n'))
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write state: %w", err), os.Remove(next))
	}
	return func() error {
		if err := os.Rename(next, filepath.Join(dir, stateFile)); err != nil {
			return fmt.Errorf("write state: %w", err)
		}
		return syncDir(dir)
	}, nil
}

// write puts a state in the place of the one before, whole or not at all.
func (s State) write(dir string) error {
	commit, err := s.prepare(dir)
	if err != nil {
		return err
	}
	return commit()
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
