package kvmcheck

import (
	"encoding/binary"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// ReadMSR reads 8 bytes of /dev/cpu/N/msr at the register's number (msr(4)):
// EIO means that this CPU has no such register. It costs the CPU an interrupt.
func (d hostDevices) ReadMSR(cpu int, register uint32) (uint64, error) {
	var data [8]byte
	if err := d.readRegister(msrPath(cpu), register, data[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(data[:]), nil
}

// ReadCPUID reads 16 bytes of /dev/cpu/N/cpuid at the leaf's number, for
// subleaf 0 (cpuid(4)).
func (d hostDevices) ReadCPUID(cpu int, leaf uint32) (CPUIDRegisters, error) {
	var data [16]byte
	if err := d.readRegister(cpuidPath(cpu), leaf, data[:]); err != nil {
		return CPUIDRegisters{}, err
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(data[4*i:]) }
	return CPUIDRegisters{word(0), word(1), word(2), word(3)}, nil
}

func (d hostDevices) readRegister(path string, register uint32, data []byte) error {
	full, err := d.root.Resolve(path)
	if err != nil {
		return err
	}
	there, err := d.root.Exists(path) // it knows a /dev that is not mounted
	if err != nil {
		return err
	}
	if !there {
		return &fs.PathError{Op: "read", Path: path, Err: unix.ENOENT}
	}
	fd, err := unix.Open(full, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	n, err := unix.Pread(fd, data, int64(register))
	if err == nil && n != len(data) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return nil
}
