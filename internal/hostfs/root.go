package hostfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// maxFile bounds one read. The largest file a probe reads, /proc/cpuinfo of a
// machine with a thousand CPUs, is about 2 MiB.
const maxFile = 8 << 20

// Errors that a caller may branch on, besides those of package io/fs.
var (
	// ErrTooLarge says that a file is larger than any probe expects.
	ErrTooLarge = errors.New("file is larger than 8 MiB")
	// ErrNotRecorded says that a recording does not know about a path, which
	// is less than knowing that the path is absent.
	ErrNotRecorded = errors.New("not part of this recording")
	// ErrNotMounted says that the whole file system of a path is missing, so
	// that the path's absence says nothing about the host.
	ErrNotMounted = errors.New("nothing is mounted there")
)

// Root is a host's file system below a directory.
type Root struct {
	dir       string
	recording *Manifest // nil on a real file system
	seen      *Recorder // nil unless the reads are being recorded
	cleanup   func() error
	places    *sync.Map // of a recording, whose links do not change: name to resolved path

	ctx    context.Context // of Within; nil: reads may take as long as they like
	calls  *calls
	closed chan struct{} // by Close: ends the reads that a recording says hang
}

// Open returns the root at a directory ("/" is this machine) or at a
// recording made by [Recorder.WriteArchive]. Close it to give back what a
// recording took to unpack.
func Open(name string) (*Root, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if !info.IsDir() {
		return openArchive(name)
	}
	dir, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return openDir(dir)
}

// openDir returns the root at dir, which may hold an unpacked recording.
func openDir(dir string) (*Root, error) {
	root := &Root{dir: dir, places: new(sync.Map), calls: newCalls(), closed: make(chan struct{})}
	manifest, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	root.recording = manifest
	return root, nil
}

// Close removes what an archive was unpacked to. It is called once, on what
// Open returned.
func (r *Root) Close() error {
	close(r.closed)
	if r.cleanup == nil {
		return nil
	}
	return r.cleanup()
}

// Dir returns the directory on this machine, for libraries that read for themselves.
func (r *Root) Dir() string { return r.dir }

// Recording returns the manifest when the root is a recording, else nil.
func (r *Root) Recording() *Manifest { return r.recording }

// ReadFile returns the whole content of a file, 8 MiB at most.
func (r *Root) ReadFile(name string) ([]byte, error) {
	name = path.Clean(name)
	data, err := Within(r, "read", name, func() ([]byte, error) { return r.read(name) })
	r.seen.file(name, data, err)
	return data, err
}

func (r *Root) read(name string) ([]byte, error) {
	if err := r.fault("read", name); err != nil {
		return nil, pathError("read", name, err)
	}
	full, err := r.resolve(name)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	data, err := readAll(full)
	if err != nil {
		return nil, pathError("read", name, r.absence(name, err))
	}
	return data, nil
}

// readAll makes the system calls itself: package os would also ask for each
// file whether it can be polled, which costs more than the reading.
func readAll(name string) ([]byte, error) {
	fd, err := openFile(name, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	data := make([]byte, 0, os.Getpagesize())
	for {
		n, err := again(func() (int, error) { return unix.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, err
		}
		data = data[:len(data)+n]
		switch {
		case n == 0:
			return data, nil
		case len(data) > maxFile:
			return nil, ErrTooLarge
		case len(data) == cap(data):
			data = slices.Grow(data, len(data))
		}
	}
}

// again makes a system call until no signal cuts it short.
func again(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// ReadDir returns the names in a directory, sorted.
func (r *Root) ReadDir(name string) ([]string, error) {
	name = path.Clean(name)
	names, err := Within(r, "list", name, func() ([]string, error) { return r.readDir(name) })
	r.seen.list(name, names, err)
	return names, err
}

func (r *Root) readDir(name string) ([]string, error) {
	if r.recording != nil {
		err := r.fault("list", name)
		if err != nil {
			return nil, pathError("list", name, err)
		}
		names, err := r.recording.list(name)
		if err != nil {
			return nil, pathError("list", name, err)
		}
		return names, nil
	}
	full, err := r.resolve(name)
	if err != nil {
		return nil, pathError("list", name, err)
	}
	entries, err := os.ReadDir(full)
	if err != nil {
		return nil, pathError("list", name, r.absence(name, err))
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	slices.Sort(names)
	return names, nil
}

// ReadLink returns the target of a symbolic link.
func (r *Root) ReadLink(name string) (string, error) {
	name = path.Clean(name)
	target, err := Within(r, "readlink", name, func() (string, error) { return r.readLink(name) })
	r.seen.link(name, err)
	return target, err
}

func (r *Root) readLink(name string) (string, error) {
	if err := r.fault("readlink", name); err != nil {
		return "", pathError("readlink", name, err)
	}
	full, err := r.resolveParent(name)
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	target, err := os.Readlink(full)
	if err != nil {
		return "", pathError("readlink", name, r.absence(name, err))
	}
	return target, nil
}

// Exists reports whether a path is there; an error means that nobody can tell.
func (r *Root) Exists(name string) (bool, error) {
	name = path.Clean(name)
	found, err := Within(r, "stat", name, func() (bool, error) { return r.exists(name) })
	r.seen.exists(name, found, err)
	return found, err
}

func (r *Root) exists(name string) (bool, error) {
	if err := r.fault("stat", name); err != nil {
		return false, pathError("stat", name, err)
	}
	full, err := r.resolve(name)
	if err != nil {
		return false, pathError("stat", name, err)
	}
	if _, err := os.Stat(full); err != nil {
		if r.recording.present(name) {
			return true, nil
		}
		if err = r.absence(name, err); Absent(err) {
			return false, nil
		}
		return false, pathError("stat", name, err)
	}
	return true, nil
}

// Resolve returns where a host path lies on this machine, all links followed
// below the root. The path itself need not exist.
func (r *Root) Resolve(name string) (string, error) {
	full, err := r.resolve(path.Clean(name))
	if err != nil {
		return "", pathError("resolve", name, err)
	}
	return full, nil
}

func (r *Root) resolve(name string) (string, error) {
	if r.dir == "/" {
		return name, nil
	}
	if r.recording == nil {
		return securejoin.SecureJoin(r.dir, name)
	}
	if place, known := r.places.Load(name); known {
		return place.(string), nil
	}
	place, err := securejoin.SecureJoin(r.dir, name)
	if err == nil {
		r.places.Store(name, place)
	}
	return place, err
}

func (r *Root) resolveParent(name string) (string, error) {
	dir, err := r.resolve(path.Dir(name))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, path.Base(name)), nil
}

// fault returns the recorded error of an operation, or takes as long.
func (r *Root) fault(op, name string) error {
	err := r.recording.fault(op, name)
	if errors.Is(err, errHang) {
		<-r.closed
	}
	return err
}

// absence returns err, unless it says that a path does not exist and nothing
// can be concluded from that.
func (r *Root) absence(name string, err error) error {
	if !Absent(err) {
		return err
	}
	if r.recording != nil {
		return r.recording.absence(name)
	}
	mount, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	switch mount {
	case "proc", "sys", "dev", "etc", "lib", "run", "var":
		if emptyDir(filepath.Join(r.dir, mount)) {
			return fmt.Errorf("/%s: %w", mount, ErrNotMounted)
		}
	}
	return err
}

// emptyDir reports whether a directory has no entries, or cannot be listed. It
// reads only the first few: /proc has thousands, and most processes of a host
// have something that is absent.
func emptyDir(name string) bool {
	fd, err := openFile(name, unix.O_DIRECTORY)
	if err != nil {
		return true
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	var buf [512]byte
	for {
		n, err := again(func() (int, error) { return unix.Getdents(fd, buf[:]) })
		if err != nil || n == 0 {
			return true
		}
		for rest := buf[:n]; len(rest) > nameOffset; {
			size := int(binary.NativeEndian.Uint16(rest[lengthOffset:]))
			if size <= nameOffset || size > len(rest) {
				return true
			}
			entry, _, _ := bytes.Cut(rest[nameOffset:size], []byte{0})
			if string(entry) != "." && string(entry) != ".." {
				return false
			}
			rest = rest[size:]
		}
	}
}

// pathError names the host's path, whatever path the system call saw.
func pathError(op, name string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
