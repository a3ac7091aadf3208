package vm

import (
	"context"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Start boots p for a test and its subtests, and ends it with them. When they
// have failed, the console and dmesg are kept and the message says where.
func Start(t testing.TB, p Profile) *Machine {
	t.Helper()
	hosttest.Need(t, hosttest.VM, Missing())
	m, err := Boot(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			// The test's own context has ended.
			dir, err := m.Keep(context.Background())
			t.Logf("machine %s: console and dmesg are kept in %s (%v)\n%s", p.Name, dir, err, m.consoleTail())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Sh runs a script as Exec does, and returns its standard output. The test
// fails when the script does, and says at which command.
func (m *Machine) Sh(t testing.TB, script string) string {
	t.Helper()
	r, err := m.Exec(t.Context(), `trap 'echo "failed: $BASH_COMMAND" >&2' ERR; `+script)
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 0 {
		t.Fatalf("exit status %d of %s\n%s%s", r.Code, script, r.Stdout, r.Stderr)
	}
	return r.Stdout
}
