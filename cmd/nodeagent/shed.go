package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// startUp is after how long all parts of the agent have done their work once.
const startUp = 10 * time.Second

// shedStartup takes the agent's own program out of its resident memory: of some
// 28 MB that starting all parts has mapped, a third is used again. That comes back from
// the page cache, 16 pages at a fault. What can be written stays.
// Go gives back the memory of its heap that is free.
func shedStartup() error {
	debug.FreeOSMemory()
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(maps) {
		// Addresses, permissions, offset, device, inode, path: proc_pid_maps(5).
		fields := bytes.Fields(line)
		if len(fields) < 6 || string(fields[5]) != own || bytes.IndexByte(fields[1], 'w') >= 0 {
			continue
		}
		var begin, end uint64
		from, to, _ := bytes.Cut(fields[0], []byte("-"))
		if begin, err = strconv.ParseUint(string(from), 16, 64); err == nil {
			end, err = strconv.ParseUint(string(to), 16, 64)
		}
		if err != nil || begin >= end {
			return fmt.Errorf("parse /proc/self/maps: want addresses, have %q", fields[0])
		}
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED)
		if errno != 0 {
			return fmt.Errorf("unmap %s of the program: %w", fields[0], errno)
		}
	}
	return nil
}
