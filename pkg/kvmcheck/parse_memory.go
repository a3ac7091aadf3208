package kvmcheck

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// parseChoice reads "always [madvise] never", of which the bracketed word holds.
func parseChoice(text string) (string, error) {
	for word := range strings.FieldsSeq(text) {
		if inner, ok := strings.CutPrefix(word, "["); ok && strings.HasSuffix(inner, "]") && len(inner) > 1 {
			return strings.TrimSuffix(inner, "]"), nil
		}
	}
	return "", fmt.Errorf("no bracketed word in %.64q", text)
}

// parseSwap reads SwapTotal and SwapFree of /proc/meminfo.
func parseSwap(data []byte) (Swap, error) {
	total, err := parseMemInfo(data, "SwapTotal:")
	if err != nil {
		return Swap{}, err
	}
	free, err := parseMemInfo(data, "SwapFree:")
	if err != nil {
		return Swap{}, err
	}
	if free > total {
		return Swap{}, fmt.Errorf("SwapFree %d is more than SwapTotal %d", free, total)
	}
	return Swap{TotalKiB: total, UsedKiB: total - free}, nil
}

// parseMemInfo returns the KiB of a line "SwapTotal:  2097148 kB".
func parseMemInfo(data []byte, key string) (uint64, error) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 3 || fields[0] != key || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s %.20q is not a number", key, fields[1])
		}
		return kib, nil
	}
	return 0, errors.New("no " + key + " in it")
}
