package exporter

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process holds at one time.
type Usage struct {
	CPU         time.Duration // user and system, of all its threads so far
	Resident    int64         // bytes
	Descriptors int
}

// UsageOf looks at a process of this machine.
func UsageOf(pid int) (Usage, error) {
	cpu, err := CPUTime(pid)
	if err != nil {
		return Usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("measure a process: %w", err)
	}
	resident, err := parseResident(status)
	if err != nil {
		return Usage{}, fmt.Errorf("measure process %d: %w", pid, err)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("measure a process: %w", err)
	}
	return Usage{CPU: cpu, Resident: resident, Descriptors: len(open)}, nil
}

// CPUTime is the CPU time of a process, to the nanosecond: its CPU clock, which
// /proc/PID/stat rounds to ticks.
func CPUTime(pid int) (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED, of the whole process
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &used); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// parseResident reads VmRSS from /proc/PID/status, in bytes.
func parseResident(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		if value, found := bytes.CutPrefix(line, []byte("VmRSS:")); found {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in its status")
}
