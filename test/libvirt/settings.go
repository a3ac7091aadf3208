package libvirt

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
)

// daemonSettings is libvirtd.conf: who reaches the socket's folder is trusted. Its
// machine has a UUID of its own, so that domains can migrate to another bed.
const daemonSettings = `auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
max_clients = 5000
max_workers = 20
log_outputs = "3:file:/var/log/libvirtd.log"
host_uuid = "%s"
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

// hostUUID makes a random UUID.
func hostUUID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	id[6], id[8] = id[6]&0x0F|0x40, id[8]&0x3F|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func writeSettings(dir, mode string) error {
	qemu := qemuSettings
	if mode == system {
		qemu += asRoot
	}
	for name, text := range map[string]string{"libvirtd.conf": fmt.Sprintf(daemonSettings, hostUUID()), "qemu.conf": qemu} {
		if err := os.WriteFile(filepath.Join(dir, etcDir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write libvirt's settings: %w", err)
		}
	}
	return nil
}
