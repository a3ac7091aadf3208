package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenBeneathFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"run/secret", "pods/a/in"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"kubelet": "pods", "pods/a/file": "in", "pods/a/out": "../../run/secret", "pods/a/up": "../../run", "pods/a/abs": "/run", "pods/a/magic": "/proc/self/root",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()

	// The directory itself is trusted: its links lead on.
	file, err := root.OpenBeneath("/kubelet", "a", "in")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(int(file.Fd()))); err != nil || string(text) != "pods/a/in" {
		t.Errorf("the handle leads to %q, %v", text, err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	for _, refused := range []struct {
		names []string
		want  error
	}{
		{[]string{"a", "file"}, unix.ELOOP},
		{[]string{"a", "out"}, unix.ELOOP},
		{[]string{"a", "up"}, unix.ELOOP},
		{[]string{"a", "up", "secret"}, unix.ENOTDIR},
		{[]string{"a", "abs", "secret"}, unix.ENOTDIR},
		{[]string{"a", "magic", "etc"}, unix.ENOTDIR},
		{[]string{"a", "in", "x"}, unix.ENOTDIR},
		{[]string{"a", "..", "a"}, fs.ErrInvalid},
		{[]string{"a", "in/x"}, fs.ErrInvalid},
		{[]string{"a", ""}, fs.ErrInvalid},
		{[]string{"b"}, fs.ErrNotExist},
	} {
		if file, err := root.OpenBeneath("/pods", refused.names...); !errors.Is(err, refused.want) {
			t.Errorf("%q: %v, want %v", refused.names, err, refused.want)
			_ = file.Close()
		}
	}
	if _, err := root.OpenBeneath("/nowhere", "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
