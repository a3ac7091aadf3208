package qemu

import (
	"bytes"
	"fmt"
)

// tap is a network device of a machine on the host's side.
type tap struct {
	name string
	// direct is a macvtap: it counts as the guest does, whereas what other
	// taps transmit the guest receives.
	direct bool
}

// namespace is a network namespace, read once for all its machines.
type namespace struct {
	round   uint64 // of the scanner, in which it was read last
	devices map[string]*device
}

// device is a network device of a namespace, a machine's or not.
type device struct {
	round             uint64 // in which its counters were read last
	receive, transmit Traffic
}

// parseTunName reads the name of a tap from /proc/PID/fdinfo/FD of one of its
// queues; nothing when the descriptor is not bound to a tap.
func parseTunName(data []byte) string {
	name, _ := lineValue(data, "iff:")
	return name
}

// parseDeviceName finds the name of a network device by its index, which the
// character device of a macvtap has as its number, in /proc/PID/net/dev_mcast:
// what is up has joined at least one group.
func parseDeviceName(data []byte, index string) string {
	for line := range bytes.Lines(data) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == index {
			return string(fields[1])
		}
	}
	return ""
}

// nextDevice reads the first device of /proc/net/dev's rest: its counters as
// the host sees them.
func nextDevice(data []byte) (name []byte, receive, transmit Traffic, rest []byte, err error) {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	name, text, found := bytes.Cut(line, []byte(":"))
	if !found {
		return nil, receive, transmit, rest, fmt.Errorf("want a device and its counters, have %q", clip(string(line)))
	}
	var columns [16]uint64
	for i := range columns {
		var ok bool
		if columns[i], text, ok = number(bytes.TrimLeft(text, " ")); !ok {
			return nil, receive, transmit, rest, fmt.Errorf("want 16 counters, have %q", clip(string(line)))
		}
	}
	of := func(first int) Traffic {
		return Traffic{Bytes: Some(columns[first]), Packets: Some(columns[first+1]), Errors: Some(columns[first+2]), Drops: Some(columns[first+3])}
	}
	return bytes.TrimLeft(name, " "), of(0), of(8), rest, nil
}

// readNamespace reads the counters of a namespace's devices, as a process in it
// sees them. The file is not kept open: it would hold the namespace, and with
// it the devices that go back to the host when a pod's namespace ends.
func (s *scanner) readNamespace(ns *namespace, pid int) {
	file := s.root.File(procPath(pid, "net/dev"))
	data, err := s.readFile(file)
	s.closeFile(file)
	if err != nil {
		return // another machine of the namespace may have more luck
	}
	ns.round = s.round
	for range 2 { // the heading
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	for len(data) > 0 {
		name, receive, transmit, rest, err := nextDevice(data)
		data = rest
		if err != nil {
			s.unused++
			continue
		}
		known := ns.devices[string(name)]
		if known == nil {
			known = new(device)
			ns.devices[string(name)] = known
		}
		known.round, known.receive, known.transmit = s.round, receive, transmit
	}
	for name, known := range ns.devices {
		if known.round != s.round {
			delete(ns.devices, name)
		}
	}
}

// readTaps returns the taps of a machine, each with the counters of its
// device if that is still there.
func (s *scanner) readTaps(e *emulator, nics []Interface) []Interface {
	if len(e.belongings.taps) == 0 {
		return nics
	}
	ns := s.namespaces[e.belongings.netns]
	if ns == nil {
		ns = &namespace{devices: make(map[string]*device)}
		s.namespaces[e.belongings.netns] = ns
	}
	if ns.round != s.round {
		s.readNamespace(ns, e.pid)
	}
	for _, t := range e.belongings.taps {
		from := ns.devices[t.name]
		if from == nil || from.round != s.round {
			e.calm = 0 // another may have taken its place
			continue
		}
		nic := Interface{Name: t.name, Receive: from.transmit, Transmit: from.receive}
		if t.direct {
			nic.Receive, nic.Transmit = nic.Transmit, nic.Receive
		}
		nics = append(nics, nic)
	}
	return nics
}
