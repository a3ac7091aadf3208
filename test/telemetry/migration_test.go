package telemetry

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// migrating are the series about a machine's migration.
func migrating(page *exporter.Page, uuid string) []exporter.Sample {
	var found []exporter.Sample
	for _, sample := range page.Select("", "uuid", uuid) {
		if strings.HasPrefix(sample.Name, "virtnode_vm_job_") {
			found = append(found, sample)
		}
	}
	return found
}

// TestMigration moves a machine between two beds, each with an agent, as on two
// nodes: the migration shows at the source while it lasts, and no longer, and
// the machine goes on at the other end. A second agent there sees libvirt's socket
// only, as that of a pod, and not what libvirt writes down beside it.
func TestMigration(t *testing.T) {
	options := libvirt.Options{HostNetwork: true}
	from, to := newFleet(t, options, libvirt.Domain{Name: "traveller", Workload: libvirt.Dirty}, libvirt.Domain{Name: "homebody"}), libvirt.New(t, options)
	uuid := from.uuids["traveller"]
	source, target := startAgent(t, "", from.URI()), startAgent(t, "", to.URI())
	listener := startAgent(t, "", "qemu+unix:///system?socket="+startImpostor(t, from.Socket(), 1<<30, func([]byte) {}).socket)
	told := func(agent *exporter.Process, state string, more func(*exporter.Page) error) func() error {
		return func() error {
			page := scrape(t, agent)
			if _, known := page.Value("virtnode_vm_state", "uuid", uuid, "state", state); !known {
				return fmt.Errorf("it is not %s: %v", state, page.Select("virtnode_vm_state", "uuid", uuid))
			}
			if at := migrating(page, from.uuids["homebody"]); len(at) > 0 {
				t.Fatalf("who stays migrates: %s", at[0].Key())
			}
			return more(page)
		}
	}
	still := func(page *exporter.Page) error {
		if at := migrating(page, uuid); len(at) > 0 {
			return fmt.Errorf("it migrates: %s", at[0].Key())
		}
		return nil
	}
	eventually(t, "the machine before its migration", told(source, "running", still))
	eventually(t, "the same for who only listens", told(listener, "running", still))

	migration, err := from.Migrate(t.Context(), "traveller", to)
	must(t, err)
	moves := func(page *exporter.Page) error {
		select {
		case <-migration.Ended():
			t.Fatal(migration.Hurry(t.Context()))
		default:
		}
		if _, told := page.Value("virtnode_vm_job_state", "uuid", uuid, "job", "migration out"); !told {
			return fmt.Errorf("its job is %v", page.Select("virtnode_vm_job_state", "uuid", uuid))
		}
		for _, sample := range migrating(page, uuid) {
			if sample.Value > 1<<20 {
				return nil // bytes that were sent, or are to be sent
			}
		}
		return errors.New("no series of it")
	}
	eventually(t, "the migration on the page", told(source, "running", moves))
	eventually(t, "the migration for who only listens", told(listener, "running", moves))
	must(t, migration.Hurry(t.Context()))
	eventually(t, "the machine after its migration", told(target, "running", still))
	eventually(t, "the end of it where it was", told(source, "shutoff", still))
	eventually(t, "the end of it for who only listens", told(listener, "shutoff", still))
}
