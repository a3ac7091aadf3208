package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// isQEMU reports whether comm (/proc/PID/comm) or the name of a program is a
// QEMU system emulator's. The kernel cuts comm at 15 bytes.
func isQEMU(comm string) bool {
	return strings.HasPrefix(comm, "qemu-system-") || comm == "qemu-kvm"
}

// identity is what a QEMU command line says about its machine.
type identity struct {
	name string // empty when the command line has none
	uuid string // likewise
	// machine is false for a QEMU started to ask what it can do.
	machine bool
}

// parseCmdline reads a QEMU's /proc/PID/cmdline: -name guest=NAME,... or
// -name NAME, and -uuid.
func parseCmdline(data []byte) identity {
	id := identity{machine: true}
	args := bytes.Split(bytes.TrimSuffix(data, []byte{0}), []byte{0})
	for i := 1; i+1 < len(args); i++ {
		option, isOption := strings.CutPrefix(string(args[i]), "-")
		if !isOption {
			continue
		}
		value := string(args[i+1])
		switch strings.TrimPrefix(option, "-") {
		case "name":
			if id.name == "" {
				id.name = guestName(value)
			}
		case "uuid":
			if id.uuid == "" {
				id.uuid = normalUUID(value)
			}
		case "machine", "M":
			kind, _, _ := strings.Cut(value, ",")
			id.machine = strings.TrimPrefix(kind, "type=") != "none"
		default:
			continue
		}
		i++
	}
	return id
}

// guestName reads the value of -name, in which a comma is written twice.
func guestName(value string) string {
	for i := 0; value != ""; i++ {
		var part strings.Builder
		for {
			text, rest, found := strings.Cut(value, ",")
			part.WriteString(text)
			value = rest
			if !found || !strings.HasPrefix(rest, ",") {
				break
			}
			part.WriteByte(',')
			value = rest[1:]
		}
		key, name, keyed := strings.Cut(part.String(), "=")
		switch {
		case keyed && key == "guest":
			return name
		case !keyed && i == 0:
			return key
		}
	}
	return ""
}

// normalUUID returns a UUID in lower case, or nothing when text is none.
func normalUUID(text string) string {
	if len(text) != 36 {
		return ""
	}
	text = strings.ToLower(text)
	for i, c := range text {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", c) {
			return ""
		}
	}
	return text
}

// stat is what /proc/PID/stat and /proc/PID/task/TID/stat say (proc(5)).
type stat struct {
	comm  string
	state byte
	ticks uint64 // user and system time, in ticks of 10 ms
	start uint64 // ticks since the machine's boot
}

// parseStat reads /proc/PID/stat. The second field is in parentheses and may
// hold anything, parentheses and blanks too; the last ")" ends it.
func parseStat(data []byte) (stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("want a name in parentheses")
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("want 20 fields after the name, have %d", len(fields))
	}
	s := stat{comm: string(data[open+1 : end]), state: fields[0][0]}
	// Field 3 of proc(5), the state, is the first here.
	user, err1 := strconv.ParseUint(string(fields[14-3]), 10, 64)
	system, err2 := strconv.ParseUint(string(fields[15-3]), 10, 64)
	start, err3 := strconv.ParseUint(string(fields[22-3]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return stat{}, err
	}
	s.ticks, s.start = user+system, start
	return s, nil
}

// parseStatus reads VmRSS from /proc/PID/status, in bytes. A process that is
// ending has none.
func parseStatus(data []byte) (Num, error) {
	value, found := lineValue(data, "VmRSS:")
	if !found {
		return Num{}, nil
	}
	number, unit, _ := strings.Cut(value, " ")
	kib, err := strconv.ParseUint(number, 10, 54)
	if err != nil || unit != "kB" {
		return Num{}, fmt.Errorf("want VmRSS in kB, have %q", clip(value))
	}
	return Some(kib * 1024), nil
}

// parseBoot reads the boot time from /proc/stat, in Unix seconds.
func parseBoot(data []byte) (int64, error) {
	value, found := lineValue(data, "btime ")
	if !found {
		return 0, errors.New("want a line btime")
	}
	return strconv.ParseInt(value, 10, 64)
}

// lineValue returns what follows key on the line that starts with it.
func lineValue(data []byte, key string) (string, bool) {
	for line := range bytes.Lines(data) {
		if value, found := bytes.CutPrefix(line, []byte(key)); found {
			return string(bytes.TrimSpace(value)), true
		}
	}
	return "", false
}

// roleOf tells a thread's role from its name, which QEMU sets when started
// with -name debug-threads=on, as libvirt does.
func roleOf(comm string, main bool) Role {
	switch {
	case main:
		return RoleEmulator
	case strings.HasPrefix(comm, "CPU ") && strings.Contains(comm, "/"), comm == "ALL CPUs/TCG":
		return RoleVCPU
	case strings.HasPrefix(comm, "IO "):
		return RoleIOThread
	case strings.HasPrefix(comm, "vhost-"):
		return RoleVhost
	}
	return RoleOther
}

// vhostOwner returns the process that a kernel thread named vhost-PID works
// for (kernels before 6.4; later ones make it a thread of that process).
func vhostOwner(comm string) (int, bool) {
	number, found := strings.CutPrefix(comm, "vhost-")
	pid, err := strconv.Atoi(number)
	return pid, found && err == nil && pid > 0
}

// programName returns the last part of what /proc/PID/exe points to.
func programName(link string) string {
	return strings.TrimSuffix(path.Base(link), " (deleted)")
}
