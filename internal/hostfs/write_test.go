package hostfs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const numVFs = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"

// attribute makes a root with one file, and returns the root and the file.
func attribute(t *testing.T) (root *hostfs.Root, file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, numVFs)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte("10\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root, file
}

func TestWriteReplacesOneValue(t *testing.T) {
	root, file := attribute(t)
	if err := root.Write(t.Context(), numVFs, "7"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); string(got) != "7" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	root, file := attribute(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(
		os.WriteFile(outside, []byte("untouched"), 0o600),
		os.Symlink(outside, filepath.Join(filepath.Dir(file), "absolute")),
		os.Symlink(strings.Repeat("../", 40)+outside, filepath.Join(filepath.Dir(file), "relative")),
	); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx         context.Context
		path, value string
		want        error
		text        string
	}{
		"a file that is not there":       {path: "/sys/bus/pci/devices/0000:01:00.0/none", want: fs.ErrNotExist},
		"what is not below /sys":         {path: "/etc/passwd", text: "only what is below /sys is written"},
		"what only seems to be below it": {path: "/sys/../etc/passwd", text: "only what is below /sys is written"},
		"two values":                     {path: numVFs, value: "1\n2\n", text: "more than one value"},
		"a value larger than a page":     {path: numVFs, value: strings.Repeat("1", 4097), text: "4097 bytes"},
		"a link out of the root":         {path: filepath.Dir(numVFs) + "/absolute", want: fs.ErrNotExist},
		"a link above the root":          {path: filepath.Dir(numVFs) + "/relative", want: fs.ErrNotExist},
		"a folder":                       {path: filepath.Dir(numVFs), want: unix.EISDIR},
		"a time that is over":            {ctx: ended, path: numVFs, value: "5", want: context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			err := root.Write(ctx, test.path, test.value)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v%s", err, test.want, test.text)
			}
		})
	}
	for file, want := range map[string]string{file: "10\n", outside: "untouched"} {
		if got, err := os.ReadFile(file); string(got) != want || err != nil {
			t.Errorf("%s holds %q, %v", file, got, err)
		}
	}
}

// TestWriteThatHangsIsNotRepeated hangs as a slow driver does: in a system call.
func TestWriteThatHangsIsNotRepeated(t *testing.T) {
	root, file := attribute(t)
	if err := errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := root.Write(ctx, numVFs, "7"); !errors.Is(err, hostfs.ErrHung) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := root.Write(t.Context(), numVFs, "6"); !errors.Is(err, hostfs.ErrHung) {
		t.Errorf("again: got %v", err)
	}
	if got := root.Hung(); !slices.Equal(got, []string{"write " + numVFs}) {
		t.Errorf("hung: %v", got)
	}
	// Somebody reads: the first write goes through, and the file is free again.
	if got, err := os.ReadFile(file); string(got) != "7" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(root.Hung()) > 0 && ctx.Err() == nil {
		runtime.Gosched()
	}
	if got := root.Hung(); len(got) > 0 {
		t.Errorf("hung: %v", got)
	}
}

func TestRecordingIsNotWritten(t *testing.T) {
	root, file := attribute(t)
	manifest := filepath.Join(strings.TrimSuffix(file, numVFs), "nodeagent-capture.json")
	if err := os.WriteFile(manifest, []byte(`{"version": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	recording, err := hostfs.Open(root.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := recording.Write(t.Context(), numVFs, "7"); !errors.Is(err, hostfs.ErrRecording) {
		t.Errorf("got %v", err)
	}
}
