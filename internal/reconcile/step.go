package reconcile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Disruption says whom a step harms while it is made.
type Disruption string

// The disruption classes, the least first. The zero value is none of them, and
// a step that has it is not made.
const (
	None       Disruption = "none"
	LinkFlap   Disruption = "link-flap"   // traffic through the link stops for a moment
	VFRecreate Disruption = "vf-recreate" // virtual functions are destroyed, and made anew
)

// Step moves one property of one target from Was to Want. Of the same
// property, both are of the same type, which its writer knows, as JSON; null
// says that there is nothing.
type Step struct {
	Kind       string          `json:"kind"`               // the property, below its writer: link/mtu
	Target     string          `json:"target"`             // what has it, by its name of today: eth1
	Identity   string          `json:"identity,omitempty"` // the same in a way that outlives a renaming; empty: the name itself
	Item       string          `json:"item,omitempty"`     // which, of properties that there are several of: an address
	Was        json.RawMessage `json:"was"`
	Want       json.RawMessage `json:"want"`
	Disruption Disruption      `json:"disruption"`
	Hits       []string        `json:"hits,omitempty"`   // the pods and VMs that it harms
	Policy     string          `json:"policy,omitempty"` // who wants it; empty: nobody wants the target otherwise any more
	Text       string          `json:"text"`             // one line for people, an imperative
}

// Key identifies the property.
func (s Step) Key() string {
	target := s.Identity
	if target == "" {
		target = s.Target
	}
	return strings.TrimSpace(s.Kind + " " + target + " " + s.Item)
}

// Writer is the part of the kind that names who makes the step.
func (s Step) Writer() string {
	writer, _, _ := strings.Cut(s.Kind, "/")
	return writer
}

// Reverse is the step that takes this one back. Its text is the same.
func (s Step) Reverse() Step {
	s.Was, s.Want = s.Want, s.Was
	return s
}

// String is the line that plans, logs and tests show.
func (s Step) String() string {
	line := s.Text
	if s.Disruption != None {
		line += " [" + string(s.Disruption) + "]"
	}
	if len(s.Hits) > 0 {
		line += " hits " + strings.Join(s.Hits, ", ")
	}
	return line
}

// Value is a property's value in a step. What is passed are plain structs,
// numbers and strings of our own, which JSON can always say.
func Value(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("value of a step: %v", err))
	}
	return text
}

// Read reads a value that [Value] wrote. An unknown field is an error: it was
// written by a newer agent, and would be lost.
func Read[T any](value json.RawMessage) (T, error) {
	var v T
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		return v, fmt.Errorf("read value of a step: %w", err)
	}
	return v, nil
}

// Same reports whether two values are the same.
func Same(a, b json.RawMessage) bool { return bytes.Equal(compact(a), compact(b)) }

// compact removes what a journal may have added, and reads nothing as null.
func compact(value json.RawMessage) []byte {
	if len(value) == 0 {
		return []byte("null")
	}
	if !bytes.ContainsAny(value, " \t\r\n") {
		return value // as Value makes it
	}
	var out bytes.Buffer
	if err := json.Compact(&out, value); err != nil {
		return value
	}
	return out.Bytes()
}
