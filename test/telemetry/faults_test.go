package telemetry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// hungFor waits until the pages are made without the hung QEMU: the others'
// numbers are newer than the fault, and the victim's monitor series are
// gone.
func hungFor(f *fleet, victim string, others []string) func(*exporter.Page) error {
	fault := time.Now()
	return func(page *exporter.Page) error {
		for _, name := range others {
			age, told := page.Value("virtnode_vm_monitor_age_seconds", "uuid", f.uuids[name])
			if since := time.Since(fault).Seconds(); !told || age >= since {
				return fmt.Errorf("%s has numbers that are %v s old, %v s after the fault", name, age, since)
			}
		}
		if left := page.Select("virtnode_vm_block_read_bytes_total", "uuid", victim); len(left) > 0 {
			return fmt.Errorf("the hung one still has %s", left[0].Key())
		}
		return nil
	}
}

func TestHungQEMU(t *testing.T) {
	f := sharedFleet(t)
	const victim = "vm-4"
	uuid, others := f.uuids[victim], f.others(victim)

	for name, hang := range map[string]func(t *testing.T) *watch{
		"the agent is the first caller": func(t *testing.T) *watch {
			w := watchAgent(t, f, startAgent(t, "", f.URI()))
			must(t, f.Hang(victim))
			return w
		},
		"the agent has its own pace": func(t *testing.T) *watch {
			w := watchAgent(t, f, startAgentIn(t, exporter.AgentOptions{URIs: []string{f.URI()}}))
			must(t, f.Hang(victim))
			return w
		},
		"somebody else holds the job": func(t *testing.T) *watch {
			w := watchAgent(t, f, startAgent(t, "", f.URI()))
			must(t, f.Hang(victim))
			call := f.Command(t.Context(), "virsh", "domstats", "--balloon", victim)
			must(t, call.Start())
			t.Cleanup(func() { _, _ = call.Process.Kill(), call.Wait() })
			return w
		},
		"the agent starts later": func(t *testing.T) *watch {
			w := watchAgent(t, f, startAgent(t, "", f.URI()))
			must(t, f.Hang(victim))
			return watchAgentLate(t, w, others)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { _ = f.Resume(victim) })
			w := hang(t)
			w.during(t, 20, func(page *exporter.Page) {
				w.keeps(t, page, others, kernel, light, monitor)
				// What its XML says cannot be had by who comes late.
				lost := w.lost(page, uuid, kernel, light)
				if lost = slices.DeleteFunc(lost, isInfo); len(lost) > 0 {
					t.Errorf("%s lost %v", victim, lost)
				}
			}, hungFor(f, uuid, others))
			must(t, f.Resume(victim))
			w.recovers(t)
		})
	}
}

// watchAgentLate starts a second agent, which has not seen the machines before
// the fault, and holds it to what the first one told. Its first pages may lack
// what the abandoned call would have brought.
func watchAgentLate(t *testing.T, w *watch, others []string) *watch {
	t.Helper()
	late := *w
	late.Process = startAgent(t, "", w.fleet.URI())
	scrapes := 0
	eventually(t, "a page of a late agent that has all but the hung one", func() error {
		scrapes++
		page := scrape(t, late.Process)
		late.took = append(late.took, page.Took)
		for _, name := range others {
			if lost := w.lost(page, w.fleet.uuids[name], kernel, light, monitor); len(lost) > 0 {
				return fmt.Errorf("%s has no %v", name, lost)
			}
		}
		return nil
	})
	t.Logf("the others are complete with scrape %d", scrapes)
	return &late
}

func TestLibvirtGoesAndComesBack(t *testing.T) {
	f := sharedFleet(t)
	for name, fault := range map[string]struct {
		begin, end func(t *testing.T)
		reason     string
	}{
		"stopped by a signal": {
			func(t *testing.T) { must(t, f.HangDaemon()) },
			func(t *testing.T) { must(t, f.ResumeDaemon()) },
			"CallTimeout",
		},
		"killed": {
			func(t *testing.T) { must(t, f.KillDaemon(t.Context())) },
			func(t *testing.T) { must(t, f.StartDaemon(t.Context())) },
			"SocketRefused",
		},
		"stopped by its manager, socket gone": {
			func(t *testing.T) {
				must(t, f.StopDaemon(t.Context()))
				if err := os.Remove(f.Socket()); !errors.Is(err, os.ErrNotExist) {
					must(t, err)
				}
			},
			func(t *testing.T) { must(t, f.StartDaemon(t.Context())) },
			"SocketMissing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := watchAgent(t, f, startAgent(t, "", f.URI()))
			fault.begin(t)
			w.during(t, 20, func(page *exporter.Page) { w.keeps(t, page, f.names, kernel) }, func(page *exporter.Page) error {
				return errors.Join(sources(page, light, fault.reason), sources(page, monitor, fault.reason))
			})
			fault.end(t)
			w.recovers(t)
		})
	}
}

// TestSocketReplaced gives the path of a daemon that went to another one.
func TestSocketReplaced(t *testing.T) {
	first := sharedFleet(t)
	second := newFleet(t, libvirt.Options{}, libvirt.Domain{Name: "newcomer", NICs: []libvirt.NIC{{}}})
	socket := filepath.Join(first.Dir(), "socket")
	must(t, os.Link(first.Socket(), socket))
	t.Cleanup(func() { _ = os.Remove(socket) })
	w := watchAgent(t, first, startAgent(t, "", "qemu+unix:///system?socket="+socket))

	next := filepath.Join(second.Dir(), "next")
	must(t, os.Link(second.Socket(), next))
	must(t, os.Rename(next, socket))
	must(t, first.KillDaemon(t.Context()))
	w.during(t, 20, func(page *exporter.Page) { w.keeps(t, page, first.names, kernel) }, func(page *exporter.Page) error {
		uuid := second.uuids["newcomer"]
		if _, known := page.Value("virtnode_vm_cpu_seconds_total", "uuid", uuid); !known {
			return errors.New("the new daemon's machine is not there")
		}
		for name, uuid := range first.uuids {
			if left := page.Select("virtnode_vm_state", "uuid", uuid); len(left) > 0 {
				return fmt.Errorf("%s of the old daemon still has %s", name, left[0].Key())
			}
		}
		return nil
	})
	must(t, first.StartDaemon(t.Context()))
	must(t, os.Link(first.Socket(), next))
	must(t, os.Rename(next, socket))
	must(t, second.KillDaemon(t.Context()))
	w.recovers(t)
}

func isInfo(series string) bool { return strings.HasPrefix(series, "virtnode_vm_info{") }
