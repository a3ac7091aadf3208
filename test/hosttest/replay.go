package hosttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// Hosts lists every machine of test/hosts by name: recorded ones, and ones
// written by hand.
func Hosts(t testing.TB) map[string]string {
	t.Helper()
	hosts := make(map[string]string)
	for _, ext := range []string{".tar.gz", MachineExt} {
		paths, err := filepath.Glob(filepath.Join(Root(), "test", "hosts", "*"+ext))
		if err != nil || len(paths) < 5 {
			t.Fatalf("found %d hosts %s, %v", len(paths), ext, err)
		}
		for _, path := range paths {
			hosts[strings.TrimSuffix(filepath.Base(path), ext)] = path
		}
	}
	return hosts
}

// OpenHost opens a recorded host, one written by hand, or a tree, for a test.
func OpenHost(t testing.TB, path string) (*hostfs.Root, kvmcheck.Host) {
	t.Helper()
	if filepath.Ext(path) == MachineExt {
		path = BuildMachine(t, path)
	}
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

// Report judges a recorded host as check does, by the profile kubevirt.
func Report(t testing.TB, path string) nodestack.Report {
	t.Helper()
	EmptyPCIDB(t)
	root, host := OpenHost(t, path)
	around, err := nodestack.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	facts := kvmcheck.Collect(t.Context(), host)
	stack := nodestack.Collect(t.Context(), around, facts.Host.Kernel)
	return nodestack.NewReport(facts, stack, kvmcheck.Profile{}, "test", Time())
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
