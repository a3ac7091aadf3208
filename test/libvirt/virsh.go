package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Virsh runs virsh, from outside the bed, and returns what it printed.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "virsh", append([]string{"--quiet", "--connect", h.URI()}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("run virsh %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// State is the domain's state in virsh's words: running, paused, shut off.
func (h *Host) State(ctx context.Context, domain string) (string, error) {
	return h.Virsh(ctx, "domstate", domain)
}

// Stats are the domain's statistics in virsh's names, such as cpu.time; groups
// are virsh's too (cpu-total, block, interface), all when none is named.
func (h *Host) Stats(ctx context.Context, domain string, groups ...string) (map[string]string, error) {
	args := []string{"domstats", "--raw"}
	for _, group := range groups {
		args = append(args, "--"+group)
	}
	text, err := h.Virsh(ctx, append(args, domain)...)
	if err != nil {
		return nil, err
	}
	return parseStats(text), nil
}

// parseStats reads the name=value lines of virsh domstats.
func parseStats(text string) map[string]string {
	stats := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			stats[name] = value
		}
	}
	return stats
}

// UUID is the domain's UUID, in lower case with dashes.
func (h *Host) UUID(ctx context.Context, domain string) (string, error) {
	out, err := h.Virsh(ctx, "domuuid", domain)
	return strings.TrimSpace(out), err
}
