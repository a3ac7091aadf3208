package main

import (
	"bytes"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBack returns memory that a check of the host has used, and scrapes do
// not: free heap, and pages of the program itself, half of which run only then.
// A page that is needed again comes from the page cache, in a microsecond.
func giveBack() {
	debug.FreeOSMemory()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		if start, end, found := parseProgramPart(string(line), program); found {
			// Nobody can write there, so that nothing can be lost.
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// parseProgramPart reads a line of /proc/PID/maps (proc(5)), if it is about a part
// of the program that is never written to.
func parseProgramPart(line, program string) (start, end uintptr, found bool) {
	fields := strings.Fields(line)
	if len(fields) != 6 || fields[5] != program || fields[1] != "r-xp" && fields[1] != "r--p" {
		return 0, 0, false
	}
	first, last, _ := strings.Cut(fields[0], "-")
	from, err1 := strconv.ParseUint(first, 16, 64)
	to, err2 := strconv.ParseUint(last, 16, 64)
	return uintptr(from), uintptr(to), err1 == nil && err2 == nil && from < to
}
