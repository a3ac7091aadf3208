package hostfs

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxValue bounds what is written: sysfs takes a page at most.
const maxValue = 4096

// ErrRecording says that a recording is there to be read.
var ErrRecording = errors.New("a recording is not written to")

// Write writes one value into a file that exists below /sys, in one system
// call, as the kernel's attributes want it. The kernel may take minutes, and
// nobody can end its work: when ctx ends first, the error is [ErrHung], the
// write goes on, and the same file is not written again until it has returned.
func (r *Root) Write(ctx context.Context, name, value string) error {
	name = path.Clean(name)
	if err := r.mayWrite(name, value); err != nil {
		return pathError("write", name, err)
	}
	key := "write " + name
	this, err := r.calls.begin(ctx, key)
	if err != nil {
		return pathError("write", name, err)
	}
	since := time.Now()
	returned := make(chan error, 1)
	go func() {
		err := r.write(name, value)
		r.calls.end(key, this)
		returned <- err
	}()
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
	}
	r.calls.abandon(key, this)
	return pathError("write", name, fmt.Errorf("%w within %v: %w", ErrHung, time.Since(since).Round(time.Millisecond), context.Cause(ctx)))
}

func (r *Root) mayWrite(name, value string) error {
	switch {
	case r.recording != nil:
		return ErrRecording
	case !strings.HasPrefix(name, "/sys/"):
		return errors.New("only what is below /sys is written")
	case len(value) > maxValue:
		return fmt.Errorf("a value of %d bytes, the most is %d", len(value), maxValue)
	case strings.ContainsAny(strings.TrimSuffix(value, "\n"), "\n\x00"):
		return errors.New("more than one value")
	}
	return nil
}

// write opens without creating: what is not there is no attribute.
func (r *Root) write(name, value string) error {
	full, err := r.resolve(name)
	if err != nil {
		return pathError("write", name, err)
	}
	fd, err := again(func() (int, error) {
		return unix.Open(full, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	})
	if err != nil {
		return pathError("write", name, r.absence(name, err))
	}
	n, err := again(func() (int, error) { return unix.Write(fd, []byte(value)) })
	if err == nil && n < len(value) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(value))
	}
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	if err != nil {
		return pathError("write", name, err)
	}
	return nil
}
