package kvmcheck

import (
	"fmt"
	"strconv"
	"strings"
)

// parseSEV reads CPUID leaf 0x8000001f.
func parseSEV(id CPUIDRegisters) SEVCapability {
	return SEVCapability{
		SEV:       id.EAX>>1&1 == 1,
		SEVES:     id.EAX>>3&1 == 1,
		SEVSNP:    id.EAX>>4&1 == 1,
		ASIDs:     id.ECX,
		FirstASID: id.EDX,
	}
}

// parsePools reads misc.capacity and misc.current: lines of a resource's name
// and a number.
func parsePools(capacity, current string) (map[string]Pool, error) {
	whole, err := parseFlatKeyed(capacity)
	if err != nil {
		return nil, fmt.Errorf("misc.capacity: %w", err)
	}
	used, err := parseFlatKeyed(current)
	if err != nil {
		return nil, fmt.Errorf("misc.current: %w", err)
	}
	pools := make(map[string]Pool)
	for name, count := range whole {
		pools[name] = Pool{Capacity: count, Used: used[name]}
	}
	return pools, nil
}

// parseFlatKeyed reads cgroup's format of one "KEY VALUE" a line.
func parseFlatKeyed(text string) (map[string]uint64, error) {
	values := make(map[string]uint64)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%.40q is not a name and a number", line)
		}
		value, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not a name and a number", line)
		}
		values[fields[0]] = value
	}
	return values, nil
}
