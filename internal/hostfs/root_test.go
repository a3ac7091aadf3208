package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree makes a host: a value that starts with "->" is a link.
func tree(t testing.TB, files map[string]string) *Root {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(content, "->"); isLink {
			err = os.Symlink(target, full)
		} else {
			err = os.WriteFile(full, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestLinksStayBelowTheRoot(t *testing.T) {
	root := tree(t, map[string]string{
		"run/libvirt/sock": "here",
		"var/run":          "->/run",
		"sys/escape":       "->../../../../../../etc/passwd",
		"sys/loop":         "->loop",
		"etc/passwd":       "the host's own",
	})
	for name, want := range map[string]string{
		"/var/run/libvirt/sock":      "here",
		"/sys/escape":                "the host's own",
		"/../../run/libvirt/sock":    "here",
		"/sys/../run/libvirt/./sock": "here",
	} {
		if got, err := root.ReadString(name); got != want || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := root.ReadString("/sys/loop"); err == nil {
		t.Error("a link to itself was read")
	}
}

func TestErrorsNameTheHostPath(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/dir/file":   "x",
		"proc/number":    "12 monkeys\n",
		"proc/negative":  "-1\n",
		"proc/flag":      "maybe\n",
		"proc/binary":    "a\x00b",
		"proc/huge":      strings.Repeat("9", 100) + "\n",
		"proc/cut":       "20",
		"proc/long_name": strings.Repeat("x", 65<<10),
	})
	for name, test := range map[string]struct {
		read func() error
		want string
	}{
		"a missing file":           {func() error { _, err := root.ReadFile("/sys/none"); return err }, "read /sys/none: no such file or directory"},
		"a directory":              {func() error { _, err := root.ReadFile("/sys/dir"); return err }, "read /sys/dir: is a directory"},
		"a file to list":           {func() error { _, err := root.ReadDir("/sys/dir/file"); return err }, "list /sys/dir/file: not a directory"},
		"a file, not a link":       {func() error { _, err := root.ReadLink("/sys/dir/file"); return err }, "readlink /sys/dir/file: invalid argument"},
		"words for a number":       {func() error { _, err := root.ReadUint("/proc/number"); return err }, `parse /proc/number: want an unsigned number, have "12 monkeys\n"`},
		"a negative unsigned":      {func() error { _, err := root.ReadUint("/proc/negative"); return err }, `parse /proc/negative: want an unsigned number, have "-1\n"`},
		"an overflow":              {func() error { _, err := root.ReadInt("/proc/huge"); return err }, `parse /proc/huge: want a number, have "` + strings.Repeat("9", 64) + `"`},
		"a number without its end": {func() error { _, err := root.ReadUint("/proc/cut"); return err }, `parse /proc/cut: the value does not end with a newline: it may be cut short: "20"`},
		"words for a boolean":      {func() error { _, err := root.ReadBool("/proc/flag"); return err }, `parse /proc/flag: want Y, N or a number, have "maybe\n"`},
		"a NUL byte":               {func() error { _, err := root.ReadString("/proc/binary"); return err }, "parse /proc/binary: value holds a NUL byte"},
		"an endless value":         {func() error { _, err := root.ReadString("/proc/long_name"); return err }, "parse /proc/long_name: value of 66560 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.read()
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAbsenceNeedsItsFileSystem(t *testing.T) {
	root := tree(t, map[string]string{"proc/version": "Linux"})
	if found, err := root.Exists("/proc/none"); found || err != nil {
		t.Errorf("/proc is there, so /proc/none is absent: got %v, %v", found, err)
	}
	for _, name := range []string{"/sys/module/kvm", "/dev/kvm"} {
		if _, err := root.Exists(name); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s without its file system: got %v", name, err)
		}
		if _, err := root.ReadFile(name); !errors.Is(err, ErrNotMounted) || Absent(err) {
			t.Errorf("%s without its file system: got %v", name, err)
		}
	}
}

func TestFIFODoesNotHoldTheReader(t *testing.T) {
	root := tree(t, map[string]string{"sys/x": ""})
	if err := unix.Mkfifo(filepath.Join(root.Dir(), "sys/fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := root.ReadFile("/sys/fifo"); len(data) > 0 {
		t.Errorf("read %q, %v from a FIFO without a writer", data, err)
	}
}

func TestTooLargeIsAnError(t *testing.T) {
	root := tree(t, map[string]string{"proc/x": ""})
	if err := os.Truncate(filepath.Join(root.Dir(), "proc/x"), maxFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := root.ReadFile("/proc/x"); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableIsNotAbsent(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	root := tree(t, map[string]string{"sys/secret": "x", "sys/closed/x": "x"})
	for _, name := range []string{"sys/secret", "sys/closed"} {
		if err := os.Chmod(filepath.Join(root.Dir(), name), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root.Dir(), "sys/closed"), 0o755) })
	if _, err := root.ReadFile("/sys/secret"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if _, err := root.Exists("/sys/closed/x"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
