package libvirt

import (
	"errors"
	"strings"
	"testing"
)

func TestDomainsMigrate(t *testing.T) {
	from, to := New(t, Options{HostNetwork: true}), New(t, Options{HostNetwork: true})
	start(t, from, Domain{Name: "traveller", Workload: Dirty})
	migration, err := from.Migrate(t.Context(), "traveller", to)
	if err != nil {
		t.Fatal(err)
	}
	// More than it has was sent: its pages change faster than they go.
	wait(t, "the migration to go round", func() bool {
		select {
		case <-migration.Ended():
			t.Fatal(errors.Join(errors.New("it ended by itself"), migration.err))
		default:
		}
		info, err := from.Virsh(t.Context(), "domjobinfo", "traveller")
		return err == nil && strings.Contains(info, "Iteration:") && !strings.Contains(info, "Iteration:        1 ")
	})
	wantState(t, from, "traveller", "running")
	if err := migration.Hurry(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, from, "traveller", "shut off")
	wantState(t, to, "traveller", "running")
	if alive := qemuPID(t, to, "traveller"); alive == 0 {
		t.Error("no QEMU runs where it went")
	}
}
