package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets in a bzImage, from Documentation/arch/x86/boot.rst.
const (
	setupSectsAt    = 0x1f1 // u8: size of the real-mode part, less its first sector
	magicAt         = 0x202 // "HdrS"
	protocolAt      = 0x206 // u16: 0x0208 and later have a payload
	payloadOffsetAt = 0x248 // u32: from the start of the protected-mode part
	payloadLengthAt = 0x24c // u32
	headerEnd       = 0x250
)

// payload returns the zstd-compressed vmlinux in a bzImage and the size that
// it has when uncompressed.
func payload(bz []byte) (compressed []byte, size int, err error) {
	if len(bz) < headerEnd {
		return nil, 0, errors.New("shorter than a bzImage's header")
	}
	if !bytes.Equal(bz[magicAt:magicAt+4], []byte("HdrS")) {
		return nil, 0, errors.New("not a bzImage: no HdrS")
	}
	if v := binary.LittleEndian.Uint16(bz[protocolAt:]); v < 0x0208 {
		return nil, 0, fmt.Errorf("boot protocol %#x has no payload", v)
	}
	sectors := uint64(bz[setupSectsAt])
	if sectors == 0 {
		sectors = 4 // as the boot protocol says
	}
	start := (sectors+1)*512 + uint64(binary.LittleEndian.Uint32(bz[payloadOffsetAt:]))
	length := uint64(binary.LittleEndian.Uint32(bz[payloadLengthAt:]))
	if start > uint64(len(bz)) || length > uint64(len(bz))-start {
		return nil, 0, fmt.Errorf("payload [%d, +%d] is outside of the %d bytes", start, length, len(bz))
	}
	data := bz[start : start+length]
	if !bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return nil, 0, errors.New("payload is not zstd")
	}
	// The build appends the uncompressed size, as a little-endian u32.
	tail := len(data) - 4
	if tail < 4 {
		return nil, 0, errors.New("payload is too short")
	}
	return data[:tail], int(binary.LittleEndian.Uint32(data[tail:])), nil
}
