package qemu

import (
	"encoding/binary"
	"math"

	"github.com/digitalocean/go-libvirt"
)

// walker reads XDR (RFC 4506) from a packet. Reading past the end sets
// failed and returns zeros.
type walker struct {
	data   []byte
	off    int // what is before has been read
	failed bool
}

// done reports whether all has been read, and nothing past the end.
func (w *walker) done() bool { return !w.failed && w.off == len(w.data) }

func (w *walker) fail() {
	w.failed, w.off = true, len(w.data)
}

// take reads n bytes; the result is part of the packet.
func (w *walker) take(n int) []byte {
	if n < 0 || n > len(w.data)-w.off {
		w.fail()
		return nil
	}
	taken := w.data[w.off : w.off+n]
	w.off += n
	return taken
}

func (w *walker) u32() uint32 {
	if len(w.data)-w.off < 4 {
		w.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(w.data[w.off:])
	w.off += 4
	return v
}

func (w *walker) u64() uint64 {
	if len(w.data)-w.off < 8 {
		w.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(w.data[w.off:])
	w.off += 8
	return v
}

// bytes reads a string or variable opaque, padded to four bytes; the result
// is part of the packet.
func (w *walker) bytes() []byte {
	n := int(w.u32())
	padded := (n + 3) &^ 3
	if padded > len(w.data)-w.off {
		w.fail()
		return nil
	}
	b := w.data[w.off : w.off+n]
	w.off += padded
	return b
}

// param is a virTypedParameter's value: a number or a string.
type param struct {
	num  Num  // unset when negative, or not a number
	real bool // it came as a double: num is in billionths
	str  []byte
}

// param reads the value of a typed parameter.
func (w *walker) param(p *param) {
	p.num, p.real, p.str = Num{}, false, nil
	switch kind := w.u32(); kind {
	case libvirtUllong: // nearly all are
		p.num = Some(w.u64())
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
	case libvirtDouble:
		if v := math.Float64frombits(w.u64()) * 1e9; v >= 0 && v < 1<<63 {
			p.num, p.real = Some(uint64(v)), true
		}
	case libvirtString:
		p.str = w.bytes()
	default:
		w.fail()
	}
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
