package libvirt

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Missing says why the bed cannot run here; nil when it can.
func Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and taps need root")
	}
	for _, tool := range []string{"libvirtd", "virsh", "qemu-system-x86_64", "qemu-img", "nsenter", "mount", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("find %s (test/install.sh libvirt installs it): %w", tool, err)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("find the kernel's tap driver: %w", err)
	}
	return nil
}
