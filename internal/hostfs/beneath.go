package hostfs

import (
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenBeneath returns a handle (O_PATH) of a file or directory in a place that
// somebody untrusted writes to. In dir links are followed as ever. Below it
// the way is walked name by name, each from the handle of the one before, and
// nothing on it may be a link: whatever is renamed meanwhile, the handle is of
// something that lay below dir. openat2(2) promises no more to who accepts no
// link, and needs Linux 5.6.
//
// A handle says what it is to fstat(2), and opens or connects through
// /proc/self/fd. It is never part of a recording.
func (r *Root) OpenBeneath(dir string, names ...string) (*os.File, error) {
	place := path.Clean(dir)
	full, err := r.resolve(place)
	if err != nil {
		return nil, pathError("open", place, err)
	}
	fd, err := openHandle(unix.AT_FDCWD, full, unix.O_DIRECTORY)
	if err != nil {
		return nil, pathError("open", place, r.absence(place, err))
	}
	for i, name := range names {
		place = path.Join(place, name)
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			_ = unix.Close(fd)
			return nil, pathError("open", place, fs.ErrInvalid)
		}
		flags := unix.O_NOFOLLOW
		if i < len(names)-1 {
			flags |= unix.O_DIRECTORY
		}
		next, err := openHandle(fd, name, flags)
		_ = unix.Close(fd)
		if err != nil {
			return nil, pathError("open", place, err)
		}
		fd = next
	}
	if err := refuseLink(fd); err != nil {
		_ = unix.Close(fd)
		return nil, pathError("open", place, err)
	}
	return os.NewFile(uintptr(fd), place), nil
}

func openHandle(dir int, name string, flags int) (int, error) {
	return again(func() (int, error) {
		return unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
	})
}

// refuseLink fails for the handle of a link itself, which is what O_NOFOLLOW
// gives together with O_PATH.
func refuseLink(fd int) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return nil
}
