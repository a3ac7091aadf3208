package libvirt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// machinePID is the PID, as seen from the machine, of the process whose PID
// inside the bed is in the file.
func (h *Host) machinePID(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the PID: %w", err)
	}
	inside, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read the PID: %w", err)
	}
	processes, err := h.processes()
	if err != nil {
		return 0, err
	}
	pid, ok := processes[inside]
	if !ok {
		return 0, fmt.Errorf("find process %d of the bed: %w", inside, os.ErrProcessDone)
	}
	return pid, nil
}

// processes are those of the bed: their PIDs inside, and as seen from the machine.
func (h *Host) processes() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	found := map[int]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// A process that ends while it is looked at is not found: not an error.
		folder := filepath.Join("/proc", entry.Name())
		if ns, err := os.Readlink(filepath.Join(folder, "ns", "pid")); err != nil || ns != h.ns.pid {
			continue
		}
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if err != nil {
			continue
		}
		if inside, ok := parseInnermostPID(status); ok {
			found[inside] = pid
		}
	}
	return found, nil
}

// parseInnermostPID reads, from the text of /proc/PID/status, the PID that the
// process has in its own namespace.
func parseInnermostPID(status []byte) (pid int, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "NSpid:" {
			continue
		}
		pid, err := strconv.Atoi(fields[len(fields)-1])
		return pid, err == nil
	}
	return 0, false
}

// end signals the process and waits until it is gone.
func end(ctx context.Context, pid int, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return hosttest.Poll(ctx, fmt.Sprintf("the end of process %d", pid), func() (bool, error) {
		// Unlike a pidfd's readiness, this is false until the process is reaped.
		err := unix.PidfdSendSignal(fd, 0, nil, 0)
		if errors.Is(err, unix.ESRCH) {
			return true, nil
		}
		return false, err
	})
}
