package kvmcheck

import (
	"errors"
	"io"
	"os"
)

const kvmGetStatsFD = 0xaece

// readStats reads the counters of a VM or a vCPU. Kernels before 5.14 have none.
func readStats(owner *os.File) Reading[map[string]uint64] {
	const source = "KVM_GET_STATS_FD"
	fd, err := ioctl(owner, kvmGetStatsFD, 0)
	if err != nil {
		return unknown[map[string]uint64](source, errors.New(errText(err)))
	}
	file := os.NewFile(uintptr(fd), source)
	defer file.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(file, maxStatsFile))
	if err != nil {
		return unknown[map[string]uint64](source, err)
	}
	stats, err := parseStats(data)
	return reading(source, stats, err)
}
