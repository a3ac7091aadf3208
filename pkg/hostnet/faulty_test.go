package hostnet_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

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

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
