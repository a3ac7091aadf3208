package telemetry

import (
	"errors"
	"fmt"
	"testing"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// TestHostileDaemon puts a daemon that misbehaves beside the real one, from
// its first reply on and after a proper start.
func TestHostileDaemon(t *testing.T) {
	f := sharedFleet(t)
	// It fronts for a daemon without machines: what it says adds none.
	empty := libvirt.New(t, libvirt.Options{})
	for name, conduct := range conducts {
		for _, honest := range conduct.honest {
			t.Run(fmt.Sprintf("%s after %d replies", name, honest), func(t *testing.T) {
				hostile := startImpostor(t, empty.Socket(), honest, nil)
				uri := "qemu+unix:///system?socket=" + hostile.socket
				w := watchAgent(t, f, startAgent(t, "", f.URI(), uri))
				hostile.behave(conduct.act)
				most := int64(0)
				w.during(t, 15, func(page *exporter.Page) {
					w.keeps(t, page, f.names, kernel, light, monitor)
					most = max(most, w.holds(t, page).resident)
				}, func(page *exporter.Page) error { return down(page, uri) })
				// A reply of the largest size that libvirt itself allows is not
				// kept as a whole before it turns out to be nothing.
				if most > w.before.resident+80<<20 {
					t.Errorf("resident memory grew from %d to %d", w.before.resident, most)
				}
				hostile.behave(nil)
				w.recovers(t)
			})
		}
	}
}

// down fails unless a source is down, for a reason that is not "not yet".
func down(page *exporter.Page, source string) error {
	states := page.Select("virtnode_source_state", "source", source)
	if len(states) == 0 {
		return errors.New("the source is not there")
	}
	for _, state := range states {
		switch state.Labels["reason"] {
		case "CallTimeout", "BadReply", "ConnectionLost", "AuthRequired":
		case "Ready", "Pending", "":
			return errors.New(state.Key())
		default:
			return fmt.Errorf("%s: another reason", state.Key())
		}
	}
	return nil
}
