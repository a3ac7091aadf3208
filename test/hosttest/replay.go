package hosttest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// OpenHost opens a recorded host, or a tree, for a test.
func OpenHost(t testing.TB, path string) (*hostfs.Root, kvmcheck.Host) {
	t.Helper()
	root, err := hostfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := kvmcheck.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, host
}

// Replay returns the facts of a recorded host.
func Replay(t testing.TB, path string) kvmcheck.Facts {
	t.Helper()
	EmptyPCIDB(t)
	_, host := OpenHost(t, path)
	return kvmcheck.Collect(t.Context(), host)
}

// EmptyPCIDB gives ghw the database of PCI names without which it lists
// nothing, unless it has one already.
func EmptyPCIDB(t testing.TB) {
	t.Helper()
	if os.Getenv("PCIDB_PATH") != "" {
		return
	}
	path := filepath.Join(t.TempDir(), "pci.ids")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PCIDB_PATH", path)
}

// Time is when every report of a test was made.
func Time() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
