package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestKernelReleases(t *testing.T) {
	packages := `linux-image-6.12.9+deb12-amd64
linux-image-6.12.117+deb12-cloud-amd64
linux-image-6.12.90+deb12-amd64
linux-image-6.12-amd64
linux-image-6.12.90+deb12.1-amd64
linux-image-6.12.117+deb12-amd64-unsigned
linux-image-6.12.90+deb12-amd64-dbg
linux-image-6.12.118+deb12-rt-amd64
`
	got := kernelReleases([]byte(packages))
	want := []string{"6.12.9+deb12-amd64", "6.12.90+deb12-amd64", "6.12.90+deb12.1-amd64"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := newest(got); got != "6.12.90+deb12.1-amd64" {
		t.Errorf("newest is %s", got)
	}
	if got := newest(nil); got != "" {
		t.Errorf("newest of none is %s", got)
	}
}

func TestToolOutput(t *testing.T) {
	ldd := `	linux-vdso.so.1 (0x00007f73b3dd8000)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f73b3a72000)
	/lib64/ld-linux-x86-64.so.2 (0x00007f73b3dda000)
`
	if diff := cmp.Diff([]string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}, libraries([]byte(ldd))); diff != "" {
		t.Error(diff)
	}
	modprobe := "builtin virtio_pci\ninsmod /k/irqbypass.ko.xz \ninsmod /k/kvm.ko.xz param=1\n"
	if diff := cmp.Diff([]string{"/k/irqbypass.ko.xz", "/k/kvm.ko.xz"}, moduleFiles([]byte(modprobe))); diff != "" {
		t.Error(diff)
	}
	for version, want := range map[string]int{
		"QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright": 10,
		"QEMU emulator version 7.2.17":                                   7,
		"something else 9.1":                                             0,
	} {
		if got := qemuMajor([]byte(version)); got != want {
			t.Errorf("version %d of %q", got, version)
		}
	}
}

func TestFindImagePicksTheNewestKernel(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(hosttest.CacheEnv, cache)
	if _, err := findImage(); err == nil || !strings.Contains(err.Error(), "vm prepare") {
		t.Errorf("error of an empty cache: %v", err)
	}
	key, err := recipeKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"image-" + key + "-6.12.9", "image-" + key + "-6.12.10", "image-another-6.12.11", "kernel-6.12.12"} {
		if err := os.MkdirAll(filepath.Join(cache, "vm", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got, err := findImage()
	if err != nil {
		t.Fatal(err)
	}
	want := image{
		release: "6.12.10",
		kernel:  filepath.Join(cache, "vm/kernel-6.12.10/vmlinux"),
		initrd:  filepath.Join(cache, "vm/image-"+key+"-6.12.10/initrd.img"),
	}
	if got != want {
		t.Errorf("found %+v, want %+v", got, want)
	}
}

func TestLockLetsOneIn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), file, func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	ctx, cancel := context.WithCancel(t.Context())
	second := func(line string) { said = append(said, line); cancel() }
	if _, err := lock(ctx, file, second); !errors.Is(err, context.Canceled) || len(said) != 1 {
		t.Errorf("second lock: %v, said %q", err, said)
	}
	unlock()
	unlock, err = lock(t.Context(), file, func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestInNewFolderIsWholeOrNotThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	broken := errors.New("broken")
	err := inNewFolder(dir, func(tmp string) error {
		return errors.Join(os.WriteFile(filepath.Join(tmp, "half"), nil, 0o644), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := inNewFolder(dir, func(tmp string) error { return os.WriteFile(filepath.Join(tmp, "whole"), nil, 0o644) }); err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(dir, "whole")) {
		t.Error("the folder has no content")
	}
}

func TestTail(t *testing.T) {
	if got := tail("one\r\ntwo\r\nthree\r\n", 2); got != "two\nthree\n" {
		t.Errorf("tail %q", got)
	}
	if got := tail(" \n", 2); got != "(nothing)\n" {
		t.Errorf("tail %q", got)
	}
}

func TestPanicLine(t *testing.T) {
	console := "[    4.1] sysrq: Trigger a crash\r\n[    4.2] Kernel panic - not syncing: sysrq triggered crash\r\n[    4.3] CPU: 1\r\n"
	if got, want := panicLine(console), "Kernel panic - not syncing: sysrq triggered crash"; got != want {
		t.Errorf("%q", got)
	}
	if got := panicLine("[    4.1] all is well\r\n"); got != "" {
		t.Errorf("%q", got)
	}
}
