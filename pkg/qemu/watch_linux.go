package qemu

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// watch tells that something changed in one of a set of directories
// (inotify(7)). What changed it does not say: who wonders looks.
type watch struct {
	file   *os.File
	fd     int             // of file
	placed map[uint32]bool // watch descriptors of the directories
	buffer []byte
}

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start inotify: %w", err)
	}
	return &watch{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, placed: make(map[uint32]bool), buffer: make([]byte, 16<<10)}, nil
}

// add watches the directory of a handle, and returns the descriptor of the
// watch, which is the same for the same directory, and whether it is new.
func (w *watch) add(dir *os.File) (id uint32, fresh bool, err error) {
	const names = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	added, err := unix.InotifyAddWatch(w.fd, "/proc/self/fd/"+strconv.Itoa(int(dir.Fd())), names)
	if err != nil {
		return 0, false, fmt.Errorf("watch %s: %w", dir.Name(), err)
	}
	id = uint32(added)
	fresh = !w.placed[id]
	w.placed[id] = true
	return id, fresh, nil
}

// keep ends the watches of all directories but these.
func (w *watch) keep(wanted map[uint32]bool) {
	for id := range w.placed {
		if !wanted[id] {
			// The kernel has ended that of a directory that is gone.
			_, _ = unix.InotifyRmWatch(w.fd, id)
			delete(w.placed, id)
		}
	}
}

// wait returns when something has changed, and with an error after close. It
// takes what the kernel has queued up to a bound, and leaves the rest: where
// changes are many, the kernel drops some and nothing is lost.
func (w *watch) wait() error {
	for {
		_, err := w.file.Read(w.buffer)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (w *watch) close() { _ = w.file.Close() }
