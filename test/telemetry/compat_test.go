package telemetry

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// TestSpeaksAsDebiansExporter scrapes ours between two scrapes of theirs: with
// compat, the page has every series of theirs, with a value in between.
func TestSpeaksAsDebiansExporter(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, exporter.DebianMissing())
	f := newFleet(t, libvirt.Options{},
		libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, VCPUs: 2, Disks: []libvirt.Disk{{}, {Format: "raw"}}, NICs: []libvirt.NIC{{}, {}}, CDROM: true},
		libvirt.Domain{Name: "busy", Workload: libvirt.Busy},
		libvirt.Domain{Name: "paused", NICs: []libvirt.NIC{{}}},
		libvirt.Domain{Name: "off"},
		libvirt.Domain{Name: "crashed", OnCrash: "preserve", Panic: true, Disks: []libvirt.Disk{{}}},
	)
	crash(t, f.Host, "crashed")
	must(t, f.Suspend(t.Context(), "paused"))
	must(t, f.Destroy(t.Context(), "off"))
	ours := startAgent(t, "  compat: [libvirt-exporter]\n", f.URI())
	theirs := start(t, exporter.Debian(f.URI()))

	first := fleetSeries(scrape(t, theirs))
	if len(first) < 50 {
		t.Fatalf("theirs has only %d series", len(first))
	}
	_, page, _ := between(t, f, ours, "chatty")
	last := fleetSeries(scrape(t, theirs))
	got := fleetSeries(page)
	var missing []string
	for key, low := range first {
		high, still := last[key]
		value, there := got[key]
		switch {
		case !still:
			t.Errorf("theirs has lost %s", key)
		case !there:
			missing = append(missing, key)
		case value < math.Min(low, high)-tick || value > math.Max(low, high)+2*tick:
			t.Errorf("%s is %v, want %v to %v", key, value, low, high)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("%d of their %d series are not there, such as\n%s", len(missing), len(first), strings.Join(missing[:min(5, len(missing))], "\n"))
	}
	for key := range got {
		if _, theirs := first[key]; !theirs {
			t.Errorf("theirs has no %s", key)
		}
	}
	helpAndType(t, page, scrape(t, theirs))
}

// fleetSeries are the series that Debian's exporter is there for.
func fleetSeries(page *exporter.Page) map[string]float64 {
	series := make(map[string]float64)
	for _, sample := range page.Samples {
		if strings.HasPrefix(sample.Name, "libvirt_") {
			series[sample.Key()] = sample.Value
		}
	}
	return series
}

// helpAndType makes sure that the types are theirs, whatever the help says.
func helpAndType(t *testing.T, ours, theirs *exporter.Page) {
	t.Helper()
	types := func(page *exporter.Page) map[string]string {
		found := make(map[string]string)
		for line := range strings.Lines(string(page.Text)) {
			var family, kind string
			if n, _ := fmt.Sscanf(line, "# TYPE %s %s", &family, &kind); n == 2 && strings.HasPrefix(family, "libvirt_") {
				found[family] = kind
			}
		}
		return found
	}
	got := types(ours)
	for family, kind := range types(theirs) {
		if got[family] != kind {
			t.Errorf("%s is a %q, theirs a %q", family, got[family], kind)
		}
	}
}
