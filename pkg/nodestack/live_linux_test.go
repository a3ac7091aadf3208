package nodestack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// TestDomainsAreWhatTheirFilesSayNow: what a status file said before is not
// told again when the file has changed or gone.
func TestDomainsAreWhatTheirFilesSayNow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, domainsDir, "vm.xml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // nothing was written
	live := newHostLive(root)
	for _, step := range []struct {
		state string // of the agent; empty: there is no file
		want  []Domain
	}{
		{"connected", []Domain{{Name: "vm", Agent: "connected"}}},
		{"connected", []Domain{{Name: "vm", Agent: "connected"}}},
		{"disconnected", []Domain{{Name: "vm", Agent: "disconnected"}}},
		{"", []Domain{}},
		{"connected", []Domain{{Name: "vm", Agent: "connected"}}},
	} {
		if step.state == "" {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, []byte(`<domstatus><domain><name>vm</name><devices><channel>
				<target name="org.qemu.guest_agent.0" state="`+step.state+`"/></channel></devices></domain></domstatus>`), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		got := live.domains()
		if diff := cmp.Diff(step.want, got.Value); diff != "" || got.Err != "" {
			t.Errorf("agent %q: %s\n%s", step.state, got.Err, diff)
		}
		if len(live.statuses) != len(step.want) {
			t.Errorf("agent %q: %d files are remembered, want %d", step.state, len(live.statuses), len(step.want))
		}
	}
}
