package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// hanging opens a recording in which operations never return.
func hanging(t *testing.T, operations ...string) *Root {
	t.Helper()
	dir := t.TempDir()
	var faults []string
	for _, operation := range operations {
		faults = append(faults, fmt.Sprintf("%q: %q", operation, hang))
	}
	manifest := `{"version": 1, "listed": {"/": ["fine"]}, "faults": {` + strings.Join(faults, ", ") + `}}`
	for name, content := range map[string]string{manifestName: manifest, "fine": "42\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func closeRoot(t *testing.T, root *Root) {
	t.Helper()
	if err := root.Close(); err != nil {
		t.Error(err)
	}
}

func TestHungReadEndsWithItsPath(t *testing.T) {
	for operation, read := range map[string]func(*Root) error{
		"read /slow":     func(r *Root) error { _, err := r.ReadFile("/slow"); return err },
		"list /slow":     func(r *Root) error { _, err := r.ReadDir("/slow"); return err },
		"readlink /slow": func(r *Root) error { _, err := r.ReadLink("/slow"); return err },
		"stat /slow":     func(r *Root) error { _, err := r.Exists("/slow"); return err },
	} {
		t.Run(operation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				whole := hanging(t, operation)
				defer closeRoot(t, whole)
				root, begun := whole.Within(t.Context()), time.Now()
				err := read(root)
				if want := operation + ": did not answer within 2s"; err == nil || err.Error() != want {
					t.Errorf("got %v, want %s", err, want)
				}
				if !errors.Is(err, ErrHung) || Absent(err) {
					t.Errorf("%v is not ErrHung, or it says that the path is absent", err)
				}
				if _, isPath := errors.AsType[*fs.PathError](err); !isPath {
					t.Errorf("%T", err)
				}
				if waited := time.Since(begun); waited != patience {
					t.Errorf("waited for %v", waited)
				}
				// It is not asked again, and costs no time any more.
				again := read(root)
				if again == nil || !errors.Is(again, ErrHung) || time.Since(begun) != patience {
					t.Errorf("again: %v after %v", again, time.Since(begun))
				}
				if got := whole.Hung(); !slices.Equal(got, []string{operation}) {
					t.Errorf("hung: %v", got)
				}
				if number, err := root.ReadUint("/fine"); number != 42 || err != nil {
					t.Errorf("what answers: %d, %v", number, err)
				}
			})
		})
	}
}

func TestHungReadsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var operations []string
		for i := range 2 * maxCalls {
			operations = append(operations, fmt.Sprintf("read /slow%d", i))
		}
		root := hanging(t, operations...)
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			within, begun := root.Within(ctx), time.Now()
			for _, operation := range operations {
				if _, err := within.ReadFile(strings.TrimPrefix(operation, "read ")); err == nil {
					t.Error("a read that hangs has returned")
				}
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			cancel()
		}
		for _, operation := range operations { // more than there are slots
			_, _ = root.Within(t.Context()).ReadFile(strings.TrimPrefix(operation, "read ")) // it fails
		}
		if got := len(root.Hung()); got != maxCalls {
			t.Errorf("%d calls hang, want %d", got, maxCalls)
		}
		if _, err := root.Within(t.Context()).ReadFile("/fine"); err == nil || !strings.Contains(err.Error(), "not read: 32 other calls have not returned") {
			t.Errorf("without a slot: %v", err)
		}
		closeRoot(t, root)
		synctest.Wait()
		if got := root.Hung(); len(got) != 0 {
			t.Errorf("after they returned: %v", got)
		}
		if _, err := root.Within(t.Context()).ReadFile("/fine"); err != nil {
			t.Errorf("with slots again: %v", err)
		}
	})
}

func TestReadsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := hanging(t, "read /slow")
		defer closeRoot(t, root)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		within := root.Within(ctx)
		if _, err := within.ReadFile("/slow"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrHung) {
			t.Errorf("got %v", err)
		}
		if _, err := within.ReadFile("/fine"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrHung) {
			t.Errorf("got %v", err)
		}
		if _, err := root.ReadFile("/fine"); err != nil {
			t.Errorf("the root without a bound: %v", err)
		}
	})
}

// TestHungCallOfTheKernel hangs as a driver does: in a system call.
func TestHungCallOfTheKernel(t *testing.T) {
	root := tree(t, map[string]string{"fine": "42"})
	fifo := filepath.Join(root.Dir(), "slow")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	opening, opened := make(chan struct{}), make(chan error, 1)
	ask := func() error {
		_, err := Within(root.Within(ctx), "open", "/slow", func() (int, error) {
			close(opening)
			fd, err := unix.Open(fifo, unix.O_RDONLY, 0) // waits for a writer
			opened <- errors.Join(err, unix.Close(fd))
			return fd, err
		})
		return err
	}
	go func() { <-opening; cancel() }()
	if err := ask(); !errors.Is(err, ErrHung) {
		t.Errorf("got %v", err)
	}
	if got := root.Hung(); !slices.Equal(got, []string{"open /slow"}) {
		t.Errorf("hung: %v", got)
	}
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func BenchmarkReadFile(b *testing.B) {
	root, err := Open("/")
	if err != nil {
		b.Fatal(err)
	}
	for name, root := range map[string]*Root{"as it comes": root, "within": root.Within(b.Context())} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := root.ReadFile("/proc/sys/kernel/ostype"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestWhatHangsApartTakesNoPlaceHere(t *testing.T) {
	root := hanging(t, "read /slow")
	defer closeRoot(t, root)
	apart := root.Apart()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := apart.Within(ctx).ReadFile("/slow"); !errors.Is(err, ErrHung) {
		t.Errorf("got %v", err)
	}
	if here, there := root.Hung(), apart.Hung(); len(here) != 0 || len(there) != 1 {
		t.Errorf("%q hang here, %q apart", here, there)
	}
}
