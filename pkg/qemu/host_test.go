package qemu

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// fakeHost is a root with a /proc whose processes a test makes up.
type fakeHost struct {
	t    testing.TB
	dir  string
	root *hostfs.Root
}

func newHost(t testing.TB) *fakeHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "qemu") // shorter than t.TempDir: sockets live here
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{t: t, dir: dir, root: root}
	h.write("/proc/stat", "cpu  1 2 3\nbtime 1700000000\nprocesses 9\n")
	return h
}

func (h *fakeHost) write(name, content string) {
	h.t.Helper()
	full := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *fakeHost) remove(name string) {
	h.t.Helper()
	if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

// process makes a QEMU process, or changes it; threads are given by name and
// ticks. As with the kernel's, the files of a thread that has ended are empty
// to those who have them open.
func (h *fakeHost) process(pid int, start uint64, cmdline string, total uint64, threads ...thread) {
	h.t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	threads = append([]thread{{"qemu-system-x86", 7}}, threads...)
	h.write(dir+"/comm", "qemu-system-x86\n")
	h.write(dir+"/cmdline", cmdline)
	h.write(dir+"/stat", strings.Replace(statLine(pid, "qemu-system-x86", total, start), " 20 0 4 0 ", fmt.Sprintf(" 20 0 %d 0 ", len(threads)), 1))
	h.write(dir+"/status", "Name:\tqemu-system-x86\nVmPeak:\t  900 kB\nVmRSS:\t  46080 kB\nThreads:\t4\n")
	for i, th := range threads {
		h.write(fmt.Sprintf("%s/task/%d/stat", dir, pid+i), statLine(pid+i, th.comm, th.ticks, start+uint64(i)))
	}
	for i := len(threads); h.exists(fmt.Sprintf("%s/task/%d", dir, pid+i)); i++ {
		h.end(fmt.Sprintf("%s/task/%d", dir, pid+i))
	}
}

// end removes what is below a directory, so that those see it too who have it open.
func (h *fakeHost) end(dir string) {
	h.t.Helper()
	err := filepath.WalkDir(filepath.Join(h.dir, dir), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return os.Truncate(name, 0)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.remove(dir)
}

func (h *fakeHost) exists(name string) bool {
	_, err := os.Stat(filepath.Join(h.dir, name))
	return err == nil
}

// link makes a symbolic link, which points to anything.
func (h *fakeHost) link(name, target string) {
	h.t.Helper()
	full := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(target, full); err != nil {
		h.t.Fatal(err)
	}
}

type thread struct {
	comm  string
	ticks uint64
}

// statLine is /proc/PID/stat with three quarters of the ticks in user mode.
func statLine(pid int, comm string, ticks, start uint64) string {
	system := ticks / 4
	return fmt.Sprintf("%d (%s) S 1 1 1 0 -1 4194560 100 0 5 0 %d %d 0 0 20 0 4 0 %d 900000 11520 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
		pid, comm, ticks-system, system, start)
}

// kernelThread makes a line of /proc/PID/stat one of a thread of the kernel's.
func kernelThread(line string) string {
	return strings.Replace(line, " -1 4194560 ", " -1 2129984 ", 1)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// checkGoroutines fails the test when it leaves goroutines behind. Call it first.
func checkGoroutines(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// descriptors counts the open files of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
