package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
)

// daemonSettings is libvirtd.conf: who reaches the socket's folder is trusted.
const daemonSettings = `auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
max_clients = 5000
max_workers = 20
log_outputs = "3:file:/var/log/libvirtd.log"
`

// qemuSettings is qemu.conf: no help from daemons that the bed does not have
// (virtlogd), and none of the walls that protect a machine from its guests.
const qemuSettings = `stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
seccomp_sandbox = 0
clear_emulator_capabilities = 0
`

// asRoot is what a system's libvirtd needs besides; a session's has no choice.
const asRoot = `user = "root"
group = "root"
`

func writeSettings(dir, mode string) error {
	qemu := qemuSettings
	if mode == system {
		qemu += asRoot
	}
	for name, text := range map[string]string{"libvirtd.conf": daemonSettings, "qemu.conf": qemu} {
		if err := os.WriteFile(filepath.Join(dir, etcDir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write libvirt's settings: %w", err)
		}
	}
	return nil
}
