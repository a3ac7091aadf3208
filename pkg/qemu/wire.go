package qemu

import (
	"encoding/binary"

	"github.com/digitalocean/go-libvirt"
)

// walker reads XDR (RFC 4506) from a packet. Reading past the end sets
// failed and returns zeros.
type walker struct {
	data   []byte
	failed bool
}

func (w *walker) take(n int) []byte {
	if n < 0 || n > len(w.data) {
		w.failed, w.data = true, nil
		return nil
	}
	taken := w.data[:n]
	w.data = w.data[n:]
	return taken
}

func (w *walker) u32() uint32 {
	if b := w.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (w *walker) u64() uint64 {
	if b := w.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes reads a string or variable opaque; the result is part of the packet.
func (w *walker) bytes() []byte {
	n := w.u32()
	if uint64(n) > uint64(len(w.data)) {
		w.take(-1)
		return nil
	}
	b := w.take(int(n))
	w.take(-int(n) & 3)
	return b
}

// param is a virTypedParameter's value: a number or a string.
type param struct {
	num Num // unset when negative, not a number, or not whole
	str []byte
}

// param reads the value of a typed parameter.
func (w *walker) param() param {
	var p param
	switch kind := w.u32(); kind {
	case libvirtInt, libvirtBoolean:
		if v := int32(w.u32()); v >= 0 {
			p.num = Some(uint64(v))
		}
	case libvirtUint:
		p.num = Some(uint64(w.u32()))
	case libvirtLlong:
		if v := int64(w.u64()); v >= 0 {
			p.num = Some(uint64(v))
		}
	case libvirtUllong:
		p.num = Some(w.u64())
	case libvirtDouble:
		w.u64()
	case libvirtString:
		p.str = w.bytes()
	default:
		w.take(-1)
	}
	return p
}

// The types of a virTypedParameter.
const (
	libvirtInt     = uint32(libvirt.TypedParamInt)
	libvirtUint    = uint32(libvirt.TypedParamUint)
	libvirtLlong   = uint32(libvirt.TypedParamLlong)
	libvirtUllong  = uint32(libvirt.TypedParamUllong)
	libvirtDouble  = uint32(libvirt.TypedParamDouble)
	libvirtBoolean = uint32(libvirt.TypedParamBoolean)
	libvirtString  = uint32(libvirt.TypedParamString)
)
