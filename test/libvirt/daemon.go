package libvirt

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// daemonPIDFile is where libvirtd writes its PID, inside the bed.
const daemonPIDFile = "/run/libvirtd.pid"

// StartDaemon starts libvirtd, and returns when it has found the domains that
// still run.
func (h *Host) StartDaemon(ctx context.Context) error {
	// With --daemon the command returns when the daemon has started, and says
	// why when it has not.
	out, err := h.daemonCommand(ctx, "libvirtd", "--daemon", "--pid-file", daemonPIDFile, "--timeout", "0").CombinedOutput()
	if err != nil {
		return fmt.Errorf("start libvirtd: %w: %s", err, strings.TrimSpace(string(out)+h.daemonLog()))
	}
	if _, err := h.Virsh(ctx, "list"); err != nil {
		return fmt.Errorf("reach libvirtd: %w: %s", err, h.daemonLog())
	}
	return h.pod.publish()
}

// StopDaemon ends libvirtd as its service manager would. The domains run on.
func (h *Host) StopDaemon(ctx context.Context) error { return h.endDaemon(ctx, unix.SIGTERM) }

// KillDaemon ends libvirtd as the kernel would. The domains run on.
func (h *Host) KillDaemon(ctx context.Context) error { return h.endDaemon(ctx, unix.SIGKILL) }

// HangDaemon stops libvirtd without ending it: its socket accepts and never answers.
func (h *Host) HangDaemon() error { return h.signalDaemon(unix.SIGSTOP) }

// ResumeDaemon lets a hung libvirtd go on.
func (h *Host) ResumeDaemon() error { return h.signalDaemon(unix.SIGCONT) }

// DaemonPID is libvirtd's PID, as seen from the machine.
func (h *Host) DaemonPID() (int, error) {
	return h.machinePID(filepath.Join(h.dir, daemonPIDFile))
}

func (h *Host) signalDaemon(signal unix.Signal) error {
	pid, err := h.DaemonPID()
	if err != nil {
		return fmt.Errorf("find libvirtd: %w", err)
	}
	if err := unix.Kill(pid, signal); err != nil {
		return fmt.Errorf("signal libvirtd: %w", err)
	}
	return nil
}

func (h *Host) endDaemon(ctx context.Context, signal unix.Signal) error {
	pid, err := h.DaemonPID()
	if err != nil {
		return fmt.Errorf("find libvirtd: %w", err)
	}
	if err := end(ctx, pid, signal); err != nil {
		return fmt.Errorf("end libvirtd: %w", err)
	}
	return nil
}

// daemonLog is what libvirtd complained about, for an error's text.
func (h *Host) daemonLog() string {
	text, err := os.ReadFile(filepath.Join(h.dir, logDir, "libvirtd.log"))
	if err != nil {
		return ""
	}
	return string(text)
}
