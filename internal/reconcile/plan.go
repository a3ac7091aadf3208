package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Refusal says that a guard forbids something, and what it saw.
type Refusal struct { //nolint:errname // it is the name of the thing, and an error on the way
	Guard    string   `json:"guard"`              // which: uplink, in-use, isolation, disruption, …
	Target   string   `json:"target"`             // what is not touched
	Policy   string   `json:"policy,omitempty"`   // who wants it
	Message  string   `json:"message"`            // what would happen, and what to do
	Evidence []string `json:"evidence,omitempty"` // what was seen, each with its source
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("guard %s: %s: %s", r.Guard, r.Target, r.Message)
	if len(r.Evidence) > 0 {
		text += " (" + strings.Join(r.Evidence, "; ") + ")"
	}
	return text
}

// Plan is what has to be done, and what must not. It is made purely.
type Plan struct {
	Steps    []Step    `json:"steps"`
	Refusals []Refusal `json:"refusals,omitempty"` // with one, nothing of the plan is made
	Notes    []string  `json:"notes,omitempty"`    // what a reader should know
	Forget   []string  `json:"-"`                  // keys of originals that are back without us
}

// Hash names exactly this plan: these steps from these values, in this order.
func (p Plan) Hash() string {
	sum := sha256.New()
	var text []byte
	for _, s := range p.Steps {
		text = text[:0]
		for _, part := range []string{s.Kind, s.Target, s.Identity, s.Item, string(s.Disruption)} {
			text = append(strconv.AppendInt(text, int64(len(part)), 10), ':')
			text = append(text, part...)
		}
		for _, value := range []json.RawMessage{s.Was, s.Want} {
			value = compact(value)
			text = append(strconv.AppendInt(text, int64(len(value)), 10), ':')
			text = append(text, value...)
		}
		sum.Write(text) // never fails
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

// Converged reports whether the host is as it shall be.
func (p Plan) Converged() bool { return len(p.Steps) == 0 && len(p.Refusals) == 0 }

// Join puts plans one after the other.
func Join(plans ...Plan) Plan {
	var all Plan
	steps := 0
	for _, p := range plans {
		steps += len(p.Steps)
	}
	if steps > 0 {
		all.Steps = make([]Step, 0, steps) // they may be thousands
	}
	for _, p := range plans {
		all.Steps = append(all.Steps, p.Steps...)
		all.Refusals = append(all.Refusals, p.Refusals...)
		all.Notes = append(all.Notes, p.Notes...)
		all.Forget = append(all.Forget, p.Forget...)
	}
	return all
}

// Restrict refuses the disruptive steps of policies that do not allow them.
func (p Plan) Restrict(allowed func(policy string) bool) Plan {
	for _, step := range p.Steps {
		if step.Disruption == None || allowed(step.Policy) {
			continue
		}
		evidence := []string{"disruption: " + string(step.Disruption)}
		for _, hit := range step.Hits {
			evidence = append(evidence, "hits "+hit)
		}
		p.Refusals = append(p.Refusals, Refusal{
			Guard: "disruption", Target: step.Target, Policy: step.Policy, Evidence: evidence,
			Message: step.Text + ": it needs disruption: Allow in the policy",
		})
	}
	return p
}

// Write prints the plan as people read it.
func (p Plan) Write(w io.Writer) error {
	var out strings.Builder
	for i, step := range p.Steps {
		fmt.Fprintf(&out, "%3d  %s\n", i+1, step)
	}
	for _, refusal := range p.Refusals {
		fmt.Fprintf(&out, "REFUSED  %s", refusal.Error())
		if refusal.Policy != "" {
			fmt.Fprintf(&out, " [policy %s]", refusal.Policy)
		}
		out.WriteString("\n")
	}
	for _, note := range p.Notes {
		fmt.Fprintf(&out, "note     %s\n", note)
	}
	switch {
	case len(p.Refusals) > 0:
		out.WriteString("nothing will be changed\n")
	case len(p.Steps) == 0:
		out.WriteString("converged: nothing to change\n")
	default:
		fmt.Fprintf(&out, "plan %s\n", p.Hash())
	}
	_, err := io.WriteString(w, out.String())
	return err
}
