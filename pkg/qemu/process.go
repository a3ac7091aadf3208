package qemu

import (
	"bytes"
	"errors"
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
	// shared says that the guest's RAM is a file or shared memory, not part
	// of the process's anonymous memory.
	shared bool
}

// parseCmdline reads a QEMU's /proc/PID/cmdline: -name guest=NAME,... or
// -name NAME, and -uuid.
func parseCmdline(data []byte) identity {
	id := identity{machine: true}
	backed, anonymous := false, false
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
		case "object":
			backed, anonymous = backed || sharedBackend(value), anonymous || strings.Contains(value, "memory-backend-ram")
		default:
			continue
		}
		i++
	}
	id.shared = backed && !anonymous
	return id
}

// sharedBackend reports whether a -object, in QEMU's own form or as JSON, is
// memory that the guest's writes go to directly: a private mapping of a file
// gets anonymous copies of what is written.
func sharedBackend(object string) bool {
	if strings.Contains(object, "memory-backend-memfd") {
		return !strings.Contains(object, "share=off") && !strings.Contains(object, `"share":false`)
	}
	return strings.Contains(object, "memory-backend-file") &&
		(strings.Contains(object, "share=on") || strings.Contains(object, `"share":true`))
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
// with -name debug-threads=on, as libvirt does. part is what is left of the
// name: the number of a virtual CPU, the name of an I/O thread.
func roleOf(comm []byte, main bool) (role Role, part []byte) {
	if main {
		return RoleEmulator, nil
	}
	if rest, found := bytes.CutPrefix(comm, []byte("CPU ")); found {
		if index, _, found := bytes.Cut(rest, []byte("/")); found {
			return RoleVCPU, index
		}
	}
	if name, found := bytes.CutPrefix(comm, []byte("IO ")); found {
		return RoleIOThread, name
	}
	switch {
	case string(comm) == "ALL CPUs/TCG":
		return RoleVCPU, nil
	case bytes.HasPrefix(comm, []byte("vhost-")):
		return RoleVhost, nil
	}
	return RoleOther, nil
}

// programName returns the last part of what /proc/PID/exe points to.
func programName(link string) string {
	return strings.TrimSuffix(path.Base(link), " (deleted)")
}
