// Command guest is the first process of a test VM. It makes the guest look
// like a booted machine, mounts the host's share, and then runs the commands
// that the host sends.
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "guest: boot:", err)
		// Or the console goes with the machine before that is printed.
		_ = unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "guest: power off:", err)
	}
}

// boot returns when the serving process has ended. Serving is a process of
// its own because process 1 has to wait for every orphan, which would take
// the exit statuses away from os/exec.
func boot() error {
	if err := setup(); err != nil {
		return err
	}
	server, err := os.StartProcess("/init", []string{"guest"}, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for orphans: %w", err)
		case pid == server.Pid && (status.Exited() || status.Signaled()):
			return fmt.Errorf("the server has ended: status %#x", int(status))
		}
	}
}

func environment() []string {
	return []string{
		"PATH=/sbin:/usr/sbin:/usr/bin:/bin",
		"HOME=/root",
		"USER=root",
		"TERM=linux",
		"LANG=C.UTF-8",
	}
}
