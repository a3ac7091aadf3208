package prometheus

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// CheckMetrics is promtool's opinion of the exposition: nil when it parses and
// follows the naming rules.
func CheckMetrics(ctx context.Context, exposition []byte) error {
	cmd := exec.CommandContext(ctx, "promtool", "check", "metrics")
	cmd.Stdin = bytes.NewReader(exposition)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("check the exposition: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
