package qemu

import (
	"bytes"
	"fmt"
)

// parseIO reads /proc/PID/io (proc(5)): what all threads of a process read and
// wrote, ended ones too.
func parseIO(data []byte) (ProcessIO, error) {
	var io ProcessIO
	err := eachPair(data, ':', func(key []byte, value uint64) {
		switch string(key) {
		case "rchar":
			io.ReadChars = Some(value)
		case "wchar":
			io.WriteChars = Some(value)
		case "syscr":
			io.ReadCalls = Some(value)
		case "syscw":
			io.WriteCalls = Some(value)
		case "read_bytes":
			io.ReadBytes = Some(value)
		case "write_bytes":
			io.WriteBytes = Some(value)
		case "cancelled_write_bytes":
			io.CancelledWrites = Some(value)
		}
	})
	return io, err
}

// eachPair reads lines of a key and a number: "key: 1" or "key 1".
func eachPair(data []byte, separator byte, visit func(key []byte, value uint64)) error {
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		end := bytes.IndexByte(line, separator)
		if end < 0 {
			return fmt.Errorf("want a key and a number, have %q", clip(string(line)))
		}
		value, after, ok := number(bytes.TrimLeft(line[end+1:], " "))
		if !ok || len(after) > 0 {
			return fmt.Errorf("want a key and a number, have %q", clip(string(line)))
		}
		visit(line[:end], value)
	}
	return nil
}
