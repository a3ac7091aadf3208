package bpf

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// walk reads what an iterator tells of threads.
type walk struct {
	open func() (io.ReadCloser, error) // each starts from the first thread

	// What is read into. A scrape allocates nothing but the file.
	buf    []byte
	thread Thread
	group  Group
}

func newWalk(open func() (io.ReadCloser, error)) *walk {
	return &walk{open: open, buf: make([]byte, 32<<10)} // what the kernel tells at a time
}

// read calls each for every thread. A walk that ends before its time has an
// error.
func (w *walk) read(each func(*Thread)) (err error) {
	file, err := w.open()
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	for have := 0; ; {
		n, err := file.Read(w.buf[have:])
		switch {
		case errors.Is(err, unix.EAGAIN):
			continue // a million threads without one of a VM
		case errors.Is(err, io.EOF) && have == 0:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		data := w.buf[:have+n]
		for size := w.thread.next(data, &w.group); size > 0; size = w.thread.next(data, &w.group) {
			each(&w.thread)
			data = data[size:]
		}
		have = copy(w.buf, data)
	}
}
