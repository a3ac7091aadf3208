package libvirt

import (
	"context"
	"errors"
	"testing"
	"time"
)

// patience is how long a call may hang before a test takes it for hung. The
// hung side never answers, so a slow machine cannot make these tests fail.
const patience = time.Second

func TestDomainFaults(t *testing.T) {
	host := New(t, Options{})
	start(t, host, Domain{Name: "victim"}, Domain{Name: "neighbour"})
	ctx := t.Context()
	pid := qemuPID(t, host, "victim")

	t.Run("a hung QEMU does not answer until it goes on", func(t *testing.T) {
		if err := host.Hang("victim"); err != nil {
			t.Fatal(err)
		}
		wantHung(t, host, "domstats", "--balloon", "victim")
		wantState(t, host, "victim", "running")
		if got := stats(t, host, "neighbour", "balloon")["balloon.current"]; got == "" {
			t.Error("the neighbour of a hung domain has no statistics")
		}
		if err := host.Resume("victim"); err != nil {
			t.Fatal(err)
		}
		wait(t, "statistics of the resumed domain", func() bool {
			return stats(t, host, "victim", "balloon")["balloon.current"] != ""
		})
	})

	t.Run("a suspended domain is paused until it goes on", func(t *testing.T) {
		if err := host.Suspend(ctx, "victim"); err != nil {
			t.Fatal(err)
		}
		wantState(t, host, "victim", "paused")
		if err := host.Unsuspend(ctx, "victim"); err != nil {
			t.Fatal(err)
		}
		wantState(t, host, "victim", "running")
	})

	t.Run("libvirtd notices a killed QEMU", func(t *testing.T) {
		if err := host.KillQEMU(ctx, "victim"); err != nil {
			t.Fatal(err)
		}
		if alive(pid) {
			t.Error("the QEMU still runs")
		}
		wait(t, "libvirtd to notice", func() bool {
			state, err := host.State(ctx, "victim")
			return err == nil && state == "shut off"
		})
	})

	t.Run("a domain boots again and is destroyed", func(t *testing.T) {
		if err := host.Boot(ctx, "victim"); err != nil {
			t.Fatal(err)
		}
		pid := qemuPID(t, host, "victim")
		if err := host.Destroy(ctx, "victim"); err != nil {
			t.Fatal(err)
		}
		wantState(t, host, "victim", "shut off")
		if alive(pid) {
			t.Error("the QEMU still runs")
		}
		if _, err := host.QEMUPID("victim"); err == nil {
			t.Error("a domain that is shut off has a QEMU")
		}
	})
}

func TestDaemonFaults(t *testing.T) {
	host := New(t, Options{})
	start(t, host, Domain{Name: "one"}, Domain{Name: "two"})
	ctx := t.Context()
	before := map[string]int{"one": qemuPID(t, host, "one"), "two": qemuPID(t, host, "two")}

	for name, end := range map[string]func(context.Context) error{
		"killed":  host.KillDaemon,
		"stopped": host.StopDaemon,
	} {
		t.Run("domains outlive a libvirtd that is "+name, func(t *testing.T) {
			if err := end(ctx); err != nil {
				t.Fatal(err)
			}
			if out, err := host.Virsh(ctx, "list"); err == nil {
				t.Errorf("libvirtd still answers: %s", out)
			}
			for domain, pid := range before {
				if !alive(pid) {
					t.Errorf("the QEMU of %s went with libvirtd", domain)
				}
			}
			if err := host.StartDaemon(ctx); err != nil {
				t.Fatal(err)
			}
			for domain, pid := range before {
				wantState(t, host, domain, "running")
				if now := qemuPID(t, host, domain); now != pid {
					t.Errorf("the QEMU of %s was %d and is %d", domain, pid, now)
				}
			}
		})
	}

	t.Run("a hung libvirtd does not answer until it goes on", func(t *testing.T) {
		if err := host.HangDaemon(); err != nil {
			t.Fatal(err)
		}
		wantHung(t, host, "list")
		if err := host.ResumeDaemon(); err != nil {
			t.Fatal(err)
		}
		wantState(t, host, "one", "running")
	})
}

func wantHung(t *testing.T, host *Host, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := host.Virsh(ctx, args...); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("virsh %v answered %q, %v", args, out, err)
	}
}
