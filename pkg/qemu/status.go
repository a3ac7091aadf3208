package qemu

import (
	"bytes"
	"fmt"
)

// status is what /proc/PID/status says (proc(5)). The sizes are those of the
// process and the same for all its threads; the switches are the thread's own.
type status struct {
	resident, anonymous, file, shared, huge, swap Num // bytes
	voluntary, involuntary                        Num
}

// parseStatus reads /proc/PID/status. A process that is ending has no sizes. A
// kernel before 4.5 does not split the resident ones.
func parseStatus(data []byte) (status, error) {
	var s status
	for len(data) > 0 {
		line := data
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			line, data = data[:end], data[end+1:]
		} else {
			data = nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 {
			continue
		}
		field, isSize := s.field(line[:colon])
		if field == nil {
			continue
		}
		value, rest, ok := number(bytes.TrimLeft(line[colon+1:], " \t"))
		if isSize {
			ok = ok && string(rest) == " kB" && value < 1<<54
			value *= 1024
		}
		if !ok {
			return status{}, fmt.Errorf("want a number, have %q", clip(string(line)))
		}
		*field = Some(value)
	}
	return s, nil
}

func (s *status) field(key []byte) (field *Num, isSize bool) {
	switch string(key) {
	case "VmRSS":
		return &s.resident, true
	case "RssAnon":
		return &s.anonymous, true
	case "RssFile":
		return &s.file, true
	case "RssShmem":
		return &s.shared, true
	case "HugetlbPages":
		return &s.huge, true
	case "VmSwap":
		return &s.swap, true
	case "voluntary_ctxt_switches":
		return &s.voluntary, false
	case "nonvoluntary_ctxt_switches":
		return &s.involuntary, false
	}
	return nil, false
}

// memoryOf says where the memory of a process is. Its own is anonymous, so
// that it can be told from the guest's only where that is not.
func memoryOf(s status, shared bool) (resident Num, memory ProcessMemory) {
	memory = ProcessMemory{Anonymous: s.anonymous, File: s.file, Shared: s.shared, Huge: s.huge, Swap: s.swap}
	if apart := shared || s.huge.V > 0; apart && s.anonymous.Set {
		memory.Overhead = s.anonymous
	}
	return s.resident, memory
}
