package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat is what /proc/PID/stat and /proc/PID/task/TID/stat say (proc(5)): of a
// process the sum over its threads, ended ones too; of a thread its own.
type stat struct {
	comm         []byte // valid as long as what it was parsed from
	state        byte
	kernel       bool   // it is a thread of the kernel's
	minor, major uint64 // page faults
	user, system uint64 // nanoseconds, in ticks of 10 ms
	threads      uint64 // of the process, alive
	start        uint64 // ticks since the machine's boot
	resident     uint64 // pages
}

// pfKthread is PF_KTHREAD of a task's flags (include/linux/sched.h).
const pfKthread = 0x00200000

// parseStat reads /proc/PID/stat. The second field is in parentheses and may
// hold anything, parentheses and blanks too; the last ")" ends it.
func parseStat(data []byte) (stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("want a name in parentheses")
	}
	s := stat{comm: data[open+1 : end]}
	rest := bytes.TrimLeft(data[end+1:], " ")
	if len(rest) < 2 || rest[1] != ' ' {
		return stat{}, errors.New("want a state after the name")
	}
	s.state, rest = rest[0], rest[1:]
	for field := 4; field <= 24; field++ { // numbered as in proc(5)
		rest = bytes.TrimLeft(rest, " ")
		if len(rest) > 0 && rest[0] == '-' {
			rest = rest[1:] // the terminal and the priority may be negative
		}
		value, after, ok := number(rest)
		if !ok {
			return stat{}, fmt.Errorf("want a number as field %d", field)
		}
		rest = after
		switch field {
		case 9:
			s.kernel = value&pfKthread != 0
		case 10:
			s.minor = value
		case 12:
			s.major = value
		case 14:
			s.user = value * uint64(tick)
		case 15:
			s.system = value * uint64(tick)
		case 20:
			s.threads = value
		case 22:
			s.start = value
		case 24:
			s.resident = value
		}
	}
	return s, nil
}

// vhostOwner returns the process that a kernel thread named vhost-PID works for
// (kernels before 6.4; later ones make it a thread of that process), or 0. What
// anybody else calls itself is its own affair.
func (s *stat) vhostOwner() int {
	number, found := strings.CutPrefix(string(s.comm), "vhost-")
	pid, err := strconv.Atoi(number)
	if !s.kernel || !found || err != nil {
		return 0
	}
	return max(pid, 0)
}

// count gives a machine what libvirt reads in the same file: CPU time, where
// the machine has no control group of its own, and resident memory, which is
// a little less exact here than in /proc/PID/status.
func (s *stat) count(vm *VM) {
	vm.CPU = CPU{Time: Some(s.user + s.system), User: Some(s.user), System: Some(s.system)}
	vm.Memory.Resident = Some(s.resident * uint64(os.Getpagesize()))
}

// parseSchedstat reads how long a thread was runnable without a CPU, in
// nanoseconds, from /proc/PID/task/TID/schedstat (Documentation/scheduler/
// sched-stats.rst). A kernel that does not count says "0 0 0"; of a thread
// that has run, that is not the truth.
func parseSchedstat(data []byte) (Num, error) {
	var values [3]uint64
	rest := data
	for i := range values {
		var ok bool
		if values[i], rest, ok = number(bytes.TrimLeft(rest, " ")); !ok {
			return Num{}, fmt.Errorf("want three numbers, have %q", clip(string(data)))
		}
	}
	if values == [3]uint64{} {
		return Num{}, nil
	}
	return Some(values[1]), nil
}

// number reads the decimal number that data begins with.
func number(data []byte) (value uint64, rest []byte, ok bool) {
	digits := 0
	for digits < len(data) && data[digits]-'0' <= 9 {
		next := value*10 + uint64(data[digits]-'0')
		if digits > 19 || value > (1<<64-1)/10 || next < value*10 {
			return 0, data, false
		}
		value = next
		digits++
	}
	return value, data[digits:], digits > 0
}

// numberLine reads a line that holds one number.
func numberLine(data []byte) (Num, error) {
	value, rest, ok := number(data)
	if !ok || !bytes.Equal(rest, []byte("\n")) {
		return Num{}, fmt.Errorf("want a number, have %q", clip(string(data)))
	}
	return Some(value), nil
}
