package libvirt

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Migration is a domain on its way from one bed to another.
type Migration struct {
	from   *Host
	domain string
	ended  chan struct{}
	err    error // read it after ended
}

// Migrate begins to move a running domain to another bed, at a MiB a second.
// Both beds must be in the machine's network. A domain of workload Dirty does
// not arrive before Hurry.
func (h *Host) Migrate(ctx context.Context, domain string, to *Host) (*Migration, error) {
	address, err := hosttest.FreeAddress()
	if err != nil {
		return nil, fmt.Errorf("find a port to migrate %s through: %w", domain, err)
	}
	// Unsafe is what disks are in a cache of the host that is the same host.
	cmd := exec.CommandContext(ctx, "virsh", "--quiet", "--connect", h.URI(), "migrate", "--live", "--unsafe",
		"--bandwidth", "1", "--migrateuri", "tcp://"+address, "--listen-address", "127.0.0.1", domain, to.URI())
	m := &Migration{from: h, domain: domain, ended: make(chan struct{})}
	go func() {
		defer close(m.ended)
		if out, err := cmd.CombinedOutput(); err != nil {
			m.err = fmt.Errorf("migrate %s: %w: %s", domain, err, strings.TrimSpace(string(out)))
		}
	}()
	return m, nil
}

// Ended is closed when the migration has ended, well or not.
func (m *Migration) Ended() <-chan struct{} { return m.ended }

// Hurry lets the migration be as fast as it can, and waits for its end.
func (m *Migration) Hurry(ctx context.Context) error {
	if _, err := m.from.Virsh(ctx, "migrate-setspeed", m.domain, "1024"); err != nil {
		return err
	}
	select {
	case <-m.ended:
		return m.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the migration of %s: %w", m.domain, ctx.Err())
	}
}
