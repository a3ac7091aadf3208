package uevent

import (
	"errors"
	"fmt"
	"strings"
)

// maxMessage bounds a message. The kernel's buffer for the variables has 2 KiB
// (UEVENT_BUFFER_SIZE), and its header is an action and a path in sysfs.
const maxMessage = 8 << 10

// Event is one announcement. The zero value stands for announcements that were
// lost because nobody took them in time.
type Event struct {
	Action    string // "add", "remove", "change", "bind", "unbind", "online", "offline", "move"
	Path      string // below /sys: "/devices/virtual/misc/kvm"
	Subsystem string // "misc"
	Device    string // below /dev: "kvm"; empty when it has no node
}

// parse reads a message as lib/kobject_uevent.c of the kernel writes it:
// "ACTION@PATH", then "KEY=VALUE" for each variable, each ended by a NUL.
func parse(message []byte) (Event, error) {
	if len(message) > maxMessage {
		return Event{}, fmt.Errorf("message of %d bytes", len(message))
	}
	head, variables, ended := strings.Cut(string(message), "\x00")
	action, path, found := strings.Cut(head, "@")
	if !ended || !found || action == "" || !strings.HasPrefix(path, "/") {
		return Event{}, errors.New("no ACTION@PATH at the start")
	}
	event := Event{Action: action, Path: path}
	for variable := range strings.SplitSeq(variables, "\x00") {
		key, value, _ := strings.Cut(variable, "=")
		switch key {
		case "SUBSYSTEM":
			event.Subsystem = value
		case "DEVNAME":
			event.Device = value
		}
	}
	if event.Subsystem == "" {
		return Event{}, errors.New("no SUBSYSTEM")
	}
	return event, nil
}
