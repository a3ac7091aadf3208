package vm

import (
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

// agentFD is the number that the host's end of the port has in QEMU.
const agentFD = 3

// files is what a machine is made of on the host.
type files struct {
	kernel, initrd string
	share          string // folder
	console        string // what the kernel prints is written there
}

// commandLine returns QEMU's arguments for p.
func commandLine(p Profile, f files) []string {
	args := []string{
		"-name", "nodeagent-" + p.Name,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		// TCG on every host, so that a machine is the same everywhere.
		"-machine", "q35", "-accel", "tcg,thread=multi",
		"-cpu", p.CPU, "-smp", strconv.Itoa(p.CPUs), "-m", p.Memory,
		"-kernel", f.kernel, "-initrd", f.initrd, "-append", kernelCommandLine(p),
		"-chardev", "file,id=console,path=" + escape(f.console), "-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,fd=" + strconv.Itoa(agentFD),
		"-device", "virtserialport,chardev=agent,name=" + wire.Port,
		"-virtfs", "local,mount_tag=" + wire.ShareTag + ",security_model=none,multidevs=remap,path=" + escape(f.share),
	}
	return append(args, p.QEMU...)
}

// kernelCommandLine asks for a quick boot that ends, rather than hangs, when
// the kernel panics.
func kernelCommandLine(p Profile) string {
	args := []string{
		"console=ttyS0", "quiet", "panic=-1",
		// TCG's timers are too coarse for the kernel's checks of them.
		"no_timer_check", "tsc=reliable", "lpj=4000000",
		"mitigations=off", "nokaslr", "cryptomgr.notests", "audit=0", "apparmor=0",
	}
	return strings.Join(append(args, p.Append...), " ")
}

// escape protects a path in a QEMU option, where a comma ends a value.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }
