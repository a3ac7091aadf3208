package hostfs

import (
	"encoding/binary"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// File is a file that is read again and again, as those of /proc are that hold
// counters. It stays open between readings, which makes one several times
// cheaper, and sees at each what is true then. Its reads are never bounded as
// those of [Root.Within] are: keep only what the kernel answers without
// waiting for anybody.
type File struct {
	root *Root
	name string
	fd   int // -1 while it is closed
}

// File names a file without opening it: the first reading does.
func (r *Root) File(name string) *File { return &File{root: r, name: path.Clean(name), fd: -1} }

// Name returns the file's path on the host.
func (f *File) Name() string { return f.name }

// Open reports whether the file holds a descriptor.
func (f *File) Open() bool { return f.fd >= 0 }

// Close gives back the descriptor. The file may be read again.
func (f *File) Close() {
	if f.fd >= 0 {
		_ = unix.Close(f.fd) // nothing was written
		f.fd = -1
	}
}

// Read returns the whole content, 8 MiB at most, in the memory of buf if it
// fits. After an error the file is closed: what it names may be another one by
// now, as with a process whose number is taken again.
func (f *File) Read(buf []byte) ([]byte, error) {
	data, err := f.read(buf[:0])
	if err != nil {
		f.Close()
		err = pathError("read", f.name, f.root.absence(f.name, err))
	}
	if f.root.seen != nil {
		f.root.seen.file(f.name, slices.Clone(data), err)
	}
	return data, err
}

func (f *File) read(buf []byte) ([]byte, error) {
	if f.fd < 0 {
		if err := f.open(); err != nil {
			return buf, err
		}
	}
	for {
		if cap(buf)-len(buf) < os.Getpagesize() {
			buf = slices.Grow(buf, os.Getpagesize())
		}
		n, err := pread(f.fd, buf[len(buf):cap(buf)], int64(len(buf)))
		if err != nil {
			return buf, err
		}
		buf = buf[:len(buf)+n]
		switch {
		case n < os.Getpagesize()/2:
			// The kernel fills at least half a page unless it has come to
			// the end: no line of these files is longer than the other half.
			return buf, nil
		case len(buf) > maxFile:
			return buf, ErrTooLarge
		}
	}
}

// pread is again without its closure, which would cost an allocation each time.
func pread(fd int, buf []byte, offset int64) (int, error) {
	for {
		n, err := unix.Pread(fd, buf, offset)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (f *File) open() error {
	if err := f.root.fault("read", f.name); err != nil {
		return err
	}
	full, err := f.root.resolve(f.name)
	if err != nil {
		return err
	}
	f.fd, err = openFile(full, 0)
	return err
}

// openFile opens for reading. A FIFO or a device in the place of a file must
// not hold the reader.
func openFile(name string, flags int) (int, error) {
	for {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
		if err == nil {
			return fd, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return -1, err
		}
	}
}

// ReadNumbers appends the names in a directory that are decimal numbers, in
// the directory's order: the processes of /proc, the threads of a process, or
// its descriptors.
func (r *Root) ReadNumbers(name string, numbers []int) ([]int, error) {
	name = path.Clean(name)
	if r.recording != nil || r.seen != nil || r.ctx != nil {
		names, err := r.ReadDir(name)
		for _, entry := range names {
			if number, ok := parseNumber([]byte(entry)); ok {
				numbers = append(numbers, number)
			}
		}
		return numbers, err
	}
	full, err := r.resolve(name)
	if err == nil {
		numbers, err = listNumbers(full, numbers)
	}
	if err != nil {
		return numbers, pathError("list", name, r.absence(name, err))
	}
	return numbers, nil
}

// listNumbers does without package os, which makes a string and a struct of
// each name.
func listNumbers(name string, numbers []int) ([]int, error) {
	fd, err := openFile(name, unix.O_DIRECTORY)
	if err != nil {
		return numbers, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var buf [8 << 10]byte
	for {
		n, err := unix.Getdents(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return numbers, err
		}
		for rest := buf[:n]; len(rest) > nameOffset; {
			size := int(binary.NativeEndian.Uint16(rest[lengthOffset:]))
			if size <= nameOffset || size > len(rest) {
				return numbers, unix.EBADMSG
			}
			if number, ok := parseNumber(rest[nameOffset:size]); ok {
				numbers = append(numbers, number)
			}
			rest = rest[size:]
		}
	}
}

// Places in the kernel's struct linux_dirent64.
const (
	lengthOffset = unsafe.Offsetof(unix.Dirent{}.Reclen)
	nameOffset   = int(unsafe.Offsetof(unix.Dirent{}.Name))
)

// parseNumber reads a decimal number that ends with the text or at a NUL byte.
func parseNumber(text []byte) (int, bool) {
	digits := 0
	for digits < len(text) && text[digits] != 0 {
		if text[digits] < '0' || text[digits] > '9' {
			return 0, false
		}
		digits++
	}
	number, err := strconv.Atoi(string(text[:digits]))
	return number, err == nil
}
