package libvirt

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// QEMUPID is the PID of the domain's QEMU, as seen from the machine.
func (h *Host) QEMUPID(domain string) (int, error) {
	pid, err := h.machinePID(filepath.Join(h.stateDir(), domain+".pid"))
	if err != nil {
		return 0, fmt.Errorf("find the QEMU of %s: %w", domain, err)
	}
	return pid, nil
}

// Hang stops the domain's QEMU without libvirt knowing: the monitor accepts
// commands and never answers.
func (h *Host) Hang(domain string) error { return h.signalQEMU(domain, unix.SIGSTOP) }

// Resume undoes Hang.
func (h *Host) Resume(domain string) error { return h.signalQEMU(domain, unix.SIGCONT) }

func (h *Host) signalQEMU(domain string, signal unix.Signal) error {
	pid, err := h.QEMUPID(domain)
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, signal); err != nil {
		return fmt.Errorf("signal the QEMU of %s: %w", domain, err)
	}
	return nil
}

// KillQEMU ends the domain's QEMU as the kernel would. libvirtd learns of it
// by itself, a little later.
func (h *Host) KillQEMU(ctx context.Context, domain string) error {
	pid, err := h.QEMUPID(domain)
	if err != nil {
		return err
	}
	if err := end(ctx, pid, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the QEMU of %s: %w", domain, err)
	}
	return nil
}

// Suspend pauses the domain through libvirt: its state is paused.
func (h *Host) Suspend(ctx context.Context, domain string) error {
	_, err := h.Virsh(ctx, "suspend", domain)
	return err
}

// Unsuspend lets a paused domain run again.
func (h *Host) Unsuspend(ctx context.Context, domain string) error {
	_, err := h.Virsh(ctx, "resume", domain)
	return err
}

// Destroy ends the domain through libvirt; it stays defined.
func (h *Host) Destroy(ctx context.Context, domain string) error {
	_, err := h.Virsh(ctx, "destroy", domain)
	return err
}
