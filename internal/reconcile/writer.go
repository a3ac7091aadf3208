package reconcile

import (
	"context"
	"encoding/json"
)

// Writer makes the steps of one part of the host.
type Writer interface {
	// Guard looks at the host anew, immediately before a write. A *[Refusal]
	// says that the step must not be made; another error, that it cannot be
	// told, which stops it as well.
	Guard(ctx context.Context, step Step) error
	// Apply makes the step, whatever part of it has been made before, and
	// returns the value that the host has then, as read back. It fails when
	// that is not what is wanted.
	Apply(ctx context.Context, step Step) (now json.RawMessage, err error)
	// Undo brings the target back to Was, whatever part of the step has been
	// made: all, some, or none. It refuses, with a *[Refusal], to take away
	// what somebody uses by now. The uplink is no reason to refuse: to restore
	// is what brings it back.
	Undo(ctx context.Context, step Step) error
}
