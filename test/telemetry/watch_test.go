package telemetry

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// The cost classes, as docs/metrics.md names them.
const (
	kernel  = "kernel"
	light   = "light"
	monitor = "monitor"
)

// classes reads the class of every family from docs/metrics.md, which is made
// from the agent's own tables.
func classes(t *testing.T) map[string]string {
	t.Helper()
	file, err := os.Open(filepath.Join(hosttest.Root(), "docs", "metrics.md"))
	must(t, err)
	defer func() { _ = file.Close() }()
	found := make(map[string]string)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if cells := strings.Split(lines.Text(), "|"); len(cells) > 5 && strings.HasPrefix(cells[1], " `virtnode_") {
			found[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[4])
		}
	}
	if len(found) < 40 {
		t.Fatalf("only %d families found in %s", len(found), file.Name())
	}
	return found
}

// seriesOf are the keys of a machine's series in some classes. Labels that say
// how something is are left out: they change while the series goes on.
func seriesOf(page *exporter.Page, class map[string]string, uuid string, of ...string) map[string]bool {
	keys := make(map[string]bool)
	for _, sample := range page.Select("", "uuid", uuid) {
		if !slices.Contains(of, class[sample.Name]) {
			continue
		}
		labels := maps.Clone(sample.Labels)
		for _, state := range []string{"state", "reason", "source"} {
			delete(labels, state)
		}
		keys[exporter.Sample{Name: sample.Name, Labels: labels}.Key()] = true
	}
	return keys
}

// watch is an agent under test, and what it is held to: the series that each
// machine had when all was well, and what the agent itself needed for them.
type watch struct {
	*exporter.Process
	fleet  *fleet
	class  map[string]string
	series map[string]map[string]bool // by UUID
	before holding
	took   []time.Duration // all scrapes since
}

// holding is what must not grow.
type holding struct {
	goroutines, descriptors int
	resident                int64
}

// watchAgent waits until an agent tells of every machine all that it knows.
func watchAgent(t *testing.T, f *fleet, agent *exporter.Process) *watch {
	t.Helper()
	w := &watch{Process: agent, fleet: f, class: classes(t), series: make(map[string]map[string]bool)}
	for range 2 {
		page := w.complete(t)
		for _, uuid := range f.uuids {
			w.series[uuid] = seriesOf(page, w.class, uuid, kernel, light, monitor)
		}
	}
	w.before = w.holds(t, scrape(t, agent))
	return w
}

// complete waits for a page on which every source is up and fresh, and every
// machine has numbers of its CPUs and disks.
func (w *watch) complete(t *testing.T) *exporter.Page {
	t.Helper()
	var page *exporter.Page
	eventually(t, "a complete page", func() error {
		page = scrape(t, w.Process)
		for _, up := range page.Select("virtnode_source_up") {
			if up.Value != 1 {
				return fmt.Errorf("%s is down", up.Key())
			}
		}
		for name, uuid := range w.fleet.uuids {
			for _, family := range []string{"virtnode_vm_cpu_seconds_total", "virtnode_vm_memory_current_bytes", "virtnode_vm_block_read_bytes_total", "virtnode_vm_network_receive_bytes_total", "virtnode_vm_process_resident_memory_bytes"} {
				if len(page.Select(family, "uuid", uuid)) == 0 {
					return fmt.Errorf("%s has no %s", name, family)
				}
			}
			if lost := w.lost(page, uuid, kernel, light, monitor); len(lost) > 0 {
				return fmt.Errorf("%s lost %v", name, lost)
			}
		}
		return nil
	})
	return page
}

// lost are the series that a machine had when all was well, and has no more.
func (w *watch) lost(page *exporter.Page, uuid string, of ...string) []string {
	now := seriesOf(page, w.class, uuid, of...)
	var lost []string
	for key := range w.series[uuid] {
		family, _, _ := strings.Cut(key, "{")
		if slices.Contains(of, w.class[family]) && !now[key] {
			lost = append(lost, key)
		}
	}
	slices.Sort(lost)
	return lost
}

// keeps makes sure that machines have the series of some classes.
func (w *watch) keeps(t *testing.T, page *exporter.Page, names []string, of ...string) {
	t.Helper()
	for _, name := range names {
		if lost := w.lost(page, w.fleet.uuids[name], of...); len(lost) > 0 {
			t.Errorf("%s lost %d series of %v: %v", name, len(lost), of, lost[:min(len(lost), 3)])
		}
	}
}

// others are the machines but for some.
func (f *fleet) others(but ...string) []string {
	return slices.DeleteFunc(slices.Clone(f.names), func(name string) bool { return slices.Contains(but, name) })
}

// scrapeBound is what a scrape may take: the agent's budget, and what the rest
// takes.
const scrapeBound = 600 * time.Millisecond

// during scrapes at least so many times, and until the page shows what is
// waited for; each page must pass the check.
func (w *watch) during(t *testing.T, least int, check func(*exporter.Page), shows func(*exporter.Page) error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for n := 0; ; n++ {
		page := scrape(t, w.Process)
		w.took = append(w.took, page.Took)
		check(page)
		err := shows(page)
		if n+1 >= least && err == nil {
			return
		}
		if t.Failed() || time.Now().After(deadline) {
			t.Fatalf("after %d scrapes: %v", n+1, err)
		}
	}
}

// recovers waits until all is as it was before the fault, and makes sure that
// nothing has stayed behind and that no scrape was late.
func (w *watch) recovers(t *testing.T) {
	t.Helper()
	w.complete(t)
	eventually(t, "the agent to hold no more than before", func() error {
		now := w.holds(t, scrape(t, w.Process))
		// A heap that grows and shrinks is no leak.
		if now.goroutines > w.before.goroutines || now.descriptors > w.before.descriptors || now.resident > w.before.resident+16<<20 {
			return fmt.Errorf("it holds %+v, and held %+v", now, w.before)
		}
		return nil
	})
	w.inTime(t)
}

// inTime holds the scrapes so far to their bound. One in ten may miss it by
// what a busy machine adds.
func (w *watch) inTime(t *testing.T) {
	t.Helper()
	if len(w.took) == 0 {
		t.Fatal("nothing was scraped")
	}
	slices.Sort(w.took)
	ninth, last := w.took[(len(w.took)-1)*9/10], w.took[len(w.took)-1]
	t.Logf("%d scrapes: half within %v, nine of ten within %v, all within %v", len(w.took), w.took[len(w.took)/2], ninth, last)
	if ninth > scrapeBound || last > scrapeBound+2*time.Second {
		t.Errorf("scrapes took %v and %v, want at most %v", ninth, last, scrapeBound)
	}
}

func (w *watch) holds(t *testing.T, page *exporter.Page) holding {
	t.Helper()
	goroutines, known := page.Value("go_goroutines")
	usage, err := exporter.UsageOf(w.PID)
	if err != nil || !known {
		t.Fatalf("goroutines known: %v; %v", known, err)
	}
	return holding{int(goroutines), usage.Descriptors, usage.Resident}
}

// sources fails unless every libvirt source of a class is up, or down for a reason.
func sources(page *exporter.Page, class, reason string) error {
	states := page.Select("virtnode_source_state", "class", class)
	if len(states) == 0 {
		return fmt.Errorf("no source of class %s", class)
	}
	for _, state := range states {
		if state.Labels["reason"] != reason {
			return fmt.Errorf("%s, want %s", state.Key(), reason)
		}
	}
	return nil
}
