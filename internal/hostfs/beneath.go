package hostfs

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenBeneath returns a handle (O_PATH) of a directory, or of something in it.
// In dir links are followed as ever; below it [OpenAt] walks, so that what
// somebody untrusted puts there leads nowhere else. A handle says what it is
// to fstat(2), and opens or connects through /proc/self/fd. It is never part
// of a recording.
func (r *Root) OpenBeneath(dir string, names ...string) (*os.File, error) {
	dir = path.Clean(dir)
	full, err := r.resolve(dir)
	if err != nil {
		return nil, pathError("open", dir, err)
	}
	fd, err := openHandle(unix.AT_FDCWD, full, unix.O_DIRECTORY)
	if err != nil {
		return nil, pathError("open", dir, r.absence(dir, err))
	}
	handle := os.NewFile(uintptr(fd), dir)
	if len(names) == 0 {
		return handle, nil
	}
	defer func() { _ = handle.Close() }()
	return OpenAt(handle, names...)
}

// OpenAt returns a handle of something below a directory, given by its own
// handle. The way is walked name by name, each from the handle of the one
// before, and nothing on it may be a link: whatever is renamed meanwhile, the
// handle is of something that lay below. openat2(2) promises no more to who
// accepts no link, and needs Linux 5.6.
func OpenAt(dir *os.File, names ...string) (*os.File, error) {
	at, place := dir, dir.Name()
	for i, name := range names {
		place = path.Join(place, name)
		next, err := step(at, name, i == len(names)-1)
		if at != dir {
			_ = at.Close()
		}
		if err != nil {
			return nil, pathError("open", place, err)
		}
		at = os.NewFile(uintptr(next), place)
	}
	return at, nil
}

// step opens one name in a directory.
func step(dir *os.File, name string, last bool) (int, error) {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return -1, fs.ErrInvalid
	}
	flags := unix.O_NOFOLLOW
	if !last {
		flags |= unix.O_DIRECTORY
	}
	fd, err := openHandle(int(dir.Fd()), name, flags)
	if err != nil {
		return -1, err
	}
	// Of a link, O_NOFOLLOW together with O_PATH gives the link itself.
	var stat unix.Stat_t
	err = unix.Fstat(fd, &stat)
	if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func openHandle(dir int, name string, flags int) (int, error) {
	return again(func() (int, error) {
		return unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	})
}
