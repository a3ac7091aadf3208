package reconcile

import (
	"encoding/json"
	"time"
)

// Event is what a record of the journal says has happened.
type Event string

// The events of a transaction. Each is on the disk before the next thing is
// done to the host.
const (
	Intent    Event = "intent"     // all steps, with the values that were there before
	Begin     Event = "begin"      // a step is about to be made
	Done      Event = "done"       // it has been made
	Refused   Event = "refused"    // a guard forbids it: nothing was written
	Failed    Event = "failed"     // it was tried in vain, and may be half made
	Applied   Event = "applied"    // all have been made, and looked at again
	Undone    Event = "undone"     // a step has been taken back
	NotUndone Event = "not-undone" // it could not be
	Committed Event = "committed"  // the new state stays
	Restored  Event = "restored"   // the state before is back
)

// Record is one line of the journal, and one of the audit log.
type Record struct {
	Time        time.Time `json:"time"`
	Event       Event     `json:"event"`
	Transaction string    `json:"transaction"`

	// Of an intent.
	Request *Request `json:"request,omitempty"`
	Steps   []Step   `json:"steps,omitempty"`

	// Of one step.
	Step   *int            `json:"step,omitempty"` // its place in the intent
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Request says who wants a plan carried out.
type Request struct {
	Who      string   `json:"who"`
	Policies []string `json:"policies,omitempty"`
	Plan     string   `json:"plan"`            // its hash; Apply fills it in
	Boot     string   `json:"boot"`            // of the kernel: what it held is gone with it; Apply fills it in
	Again    bool     `json:"again,omitempty"` // although the same plan cut the node off before

	Probes json.RawMessage `json:"probes,omitempty"` // what Confirm has to ask, also after a restart
}

// Write is a write to the host, done or tried, for the audit log.
type Write struct {
	Request     Request
	Transaction string
	Step        Step
	Undo        bool
	Before      json.RawMessage
	After       json.RawMessage
	Err         error
}
