package reconcile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk keeps the journal on a disk of a few pages, one more in each
// round, until there is room for all of it: wherever the room ends, the host
// ends in one of the two states.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(disk, 0) }) // when it fails in between
	mount := func(pages int) error {
		return unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%d", pages*os.Getpagesize()))
	}
	if err := mount(1); err != nil {
		// As package hosttest has it, which imports this one by way of others.
		if strings.Contains(os.Getenv("NODEAGENT_TEST_REQUIRE"), "netns") {
			t.Fatalf("tier netns is required, and a tmpfs cannot be mounted: %v", err)
		}
		t.Skipf("tier netns: mount a tmpfs: %v", err)
	}
	if err := unix.Unmount(disk, 0); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for pages := 2; pages < 100 && seen["applied"] == 0; pages++ {
		if err := mount(pages); err != nil {
			t.Fatal(err)
		}
		name := onFullDisk(t, filepath.Join(disk, "state"))
		seen[name]++
		if err := unix.Unmount(disk, 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(seen)
	if seen["nothing"] == 0 || seen["restored"] == 0 || seen["applied"] == 0 {
		t.Errorf("the disk was never full where it matters: %v", seen)
	}
}

// onFullDisk applies, and returns how that ended.
func onFullDisk(t *testing.T, dir string) string {
	t.Helper()
	h, _ := newHost(t)
	loop := h.loop(dir)
	plan := h.plan(wantAfter())
	for i := range plan.Steps {
		plan.Steps[i].Hits = []string{strings.Repeat("x", 3000)} // so that records fill pages
	}
	outcome, err := loop.Apply(t.Context(), request(), plan)
	name, want := string(outcome.Result), dumpBefore
	switch {
	case err != nil && outcome.Result == "":
		name = "nothing"
	case outcome.Result == Kept:
		want = dumpAfter
	case outcome.Result != Reverted:
		t.Errorf("%+v, %v", outcome, err)
	}
	if got := h.dump(t); got != want {
		t.Errorf("%s: the host is at %s", name, got)
	}
	// With room again, the next start finds nothing half done.
	if err := unix.Mount("", filepath.Dir(dir), "", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if outcome, err := loop.Recover(context.Background()); err != nil || outcome.Result == Stuck || h.dump(t) != want {
		t.Errorf("%s, then: %+v, %v, the host is at %s", name, outcome, err, h.dump(t))
	}
	return name
}
