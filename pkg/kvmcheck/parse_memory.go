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

// maxCPUs is more than any kernel supports (NR_CPUS is at most 8192).
const maxCPUs = 1 << 16

// parseCPUList counts the CPUs of "0-3,8-11"; an empty list has none.
func parseCPUList(text string) (int, error) {
	count := 0
	if text = strings.TrimSpace(text); text == "" {
		return 0, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%.20q is not a range of CPUs", part)
		}
		last, err := strconv.ParseUint(high, 10, 16)
		if err != nil || last < first {
			return 0, fmt.Errorf("%.20q is not a range of CPUs", part)
		}
		if count += int(last-first) + 1; count > maxCPUs {
			return 0, errors.New("more CPUs than there can be")
		}
	}
	return count, nil
}
