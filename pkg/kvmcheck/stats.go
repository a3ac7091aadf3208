package kvmcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Bounds of a statistics file. Linux 6.12 has some 60 counters with names of
// at most 48 bytes.
const (
	maxStatsFile = 1 << 20
	maxStatsName = 1 << 10
	maxStats     = 4096
)

// parseStats reads the file behind KVM_GET_STATS_FD (Linux
// Documentation/virt/kvm/api.rst, 4.133): a header, a descriptor per counter,
// and their values, wherever the header says they are. Counters of several
// values (histograms) and those that are zero are left out.
func parseStats(file []byte) (map[string]uint64, error) {
	const headerSize, descriptorSize = 24, 16
	if len(file) < headerSize {
		return nil, fmt.Errorf("statistics of %d bytes have no header", len(file))
	}
	order := binary.NativeEndian
	nameSize, count := order.Uint32(file[4:]), order.Uint32(file[8:])
	descriptors, data := order.Uint32(file[16:]), order.Uint32(file[20:])
	if nameSize == 0 || nameSize > maxStatsName || count > maxStats {
		return nil, fmt.Errorf("statistics header promises %d names of %d bytes", count, nameSize)
	}
	stats := make(map[string]uint64)
	for i := range uint64(count) {
		descriptor, err := cut(file, uint64(descriptors)+i*(descriptorSize+uint64(nameSize)), descriptorSize+uint64(nameSize))
		if err != nil {
			return nil, fmt.Errorf("descriptor %d: %w", i, err)
		}
		name, _, terminated := bytes.Cut(descriptor[descriptorSize:], []byte{0})
		if !terminated || len(name) == 0 {
			return nil, fmt.Errorf("descriptor %d has no name", i)
		}
		values, offset := order.Uint16(descriptor[6:]), order.Uint32(descriptor[8:])
		value, err := cut(file, uint64(data)+uint64(offset), 8*uint64(values))
		if err != nil {
			return nil, fmt.Errorf("values of %.40q: %w", name, err)
		}
		if values != 1 || order.Uint64(value) == 0 {
			continue
		}
		stats[string(name)] = order.Uint64(value)
	}
	return stats, nil
}

// cut returns size bytes at offset.
func cut(file []byte, offset, size uint64) ([]byte, error) {
	if offset > uint64(len(file)) || size > uint64(len(file))-offset {
		return nil, errors.New("outside the statistics file")
	}
	return file[offset : offset+size], nil
}
