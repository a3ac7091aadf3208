package hostnet_test

import (
	"context"
	"encoding/json"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

type ctxT = context.Context

// faulty makes a step, and says that it has failed.
type faulty struct {
	reconcile.Writer
	broken func(reconcile.Step) error
}

func (f *faulty) Apply(ctx context.Context, s reconcile.Step) (json.RawMessage, error) {
	now, err := f.Writer.Apply(ctx, s)
	if f.broken != nil && err == nil {
		err = f.broken(s)
	}
	return now, err
}
