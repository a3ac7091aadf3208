package prometheus

import (
	"fmt"
	"os/exec"
)

// Missing says why the bed cannot run here; nil when it can.
func Missing() error {
	for _, tool := range []string{"prometheus", "promtool"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("find %s (test/install.sh libvirt installs it): %w", tool, err)
		}
	}
	return nil
}
