package telemetry

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// groundOf are the processes of a fleet.
func groundOf(t *testing.T, f *fleet) exporter.Ground {
	t.Helper()
	ground := exporter.Ground{UUIDs: slices.Collect(maps.Values(f.uuids))}
	var err error
	ground.Daemon, err = f.DaemonPID()
	must(t, err)
	for _, name := range f.names {
		pid, err := f.QEMUPID(name)
		must(t, err)
		ground.QEMUs = append(ground.QEMUs, pid)
	}
	return ground
}

// TestTellsMoreThanDebiansExporter compares both on the same machines, in turn.
// What a scrape costs is told and not judged here: with these few machines it
// is mostly what does not grow with them. make bench takes many, beside the
// targets.
func TestTellsMoreThanDebiansExporter(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, exporter.DebianMissing())
	f := sharedFleet(t)
	ours := startAgent(t, "", f.URI())
	theirs := start(t, exporter.Debian(f.URI()))
	costs, err := groundOf(t, f).Compare(t.Context(), 10, 2*time.Second, ours, theirs)
	must(t, err)
	our, their := costs[0], costs[1]
	t.Logf("ours:   %+v", our)
	t.Logf("theirs: %+v", their)
	if our.SeriesPerVM < their.SeriesPerVM {
		t.Errorf("we tell less: %v series per VM, they %v", our.SeriesPerVM, their.SeriesPerVM)
	}
	if our.Resident > 40<<20 {
		t.Errorf("resident memory is %d MiB", our.Resident>>20)
	}
}
