package vm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// bzImage builds an image with a real-mode part of setup sectors and content
// as its payload, 32 bytes into the protected-mode part.
func bzImage(setup byte, content []byte) []byte {
	start := (max(int(setup), 1) + 1) * 512
	if setup == 0 {
		start = 5 * 512
	}
	bz := make([]byte, start+32)
	bz[setupSectsAt] = setup
	copy(bz[magicAt:], "HdrS")
	binary.LittleEndian.PutUint16(bz[protocolAt:], 0x020f)
	binary.LittleEndian.PutUint32(bz[payloadOffsetAt:], 32)
	binary.LittleEndian.PutUint32(bz[payloadLengthAt:], uint32(len(content)))
	return slices.Concat(bz, content, []byte("what follows"))
}

const (
	zstdMagic = "\x28\xb5\x2f\xfd"
	size1234  = "\xd2\x04\x00\x00"
)

func TestPayload(t *testing.T) {
	for _, setup := range []byte{0, 1, 27} {
		got, size, err := payload(bzImage(setup, []byte(zstdMagic+"frames"+size1234)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != zstdMagic+"frames" || size != 1234 {
			t.Errorf("setup %d: %q, size %d", setup, got, size)
		}
	}
}

func TestPayloadRefuses(t *testing.T) {
	change := func(at int, b ...byte) []byte {
		bz := bzImage(27, []byte(zstdMagic+"frames"+size1234))
		copy(bz[at:], b)
		return bz
	}
	for name, test := range map[string]struct {
		bz   []byte
		want string
	}{
		"nothing":                      {nil, "shorter"},
		"a header that is cut off":     {change(0)[:headerEnd-1], "shorter"},
		"another magic":                {change(magicAt, 'h'), "HdrS"},
		"an old boot protocol":         {change(protocolAt, 0x07, 0x02), "protocol 0x207"},
		"a payload behind the end":     {change(payloadOffsetAt, 0xff, 0xff, 0xff, 0xff), "outside"},
		"a payload over the end":       {change(payloadLengthAt, 0xff, 0xff, 0xff, 0xff), "outside"},
		"a payload that is not zstd":   {bzImage(4, []byte("\x1f\x8b\x08gzipped"+size1234)), "not zstd"},
		"a payload without a size":     {bzImage(4, []byte(zstdMagic)), "too short"},
		"setup sectors behind the end": {change(setupSectsAt, 0xff), "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := payload(test.bz); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(bzImage(27, []byte(zstdMagic+"frames"+size1234)))
	f.Add(bzImage(0, []byte(zstdMagic)))
	f.Add([]byte("HdrS"))
	f.Fuzz(func(t *testing.T, bz []byte) {
		got, _, err := payload(bz)
		if err == nil && (!bytes.HasPrefix(got, []byte(zstdMagic)) || !bytes.Contains(bz, got)) {
			t.Errorf("%q is not zstd from the image", got)
		}
	})
}
