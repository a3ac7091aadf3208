package qemu

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

// process makes a QEMU process; threads are given by name and ticks.
func (h *fakeHost) process(pid int, start uint64, cmdline string, total uint64, threads ...thread) {
	h.t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	h.write(dir+"/comm", "qemu-system-x86\n")
	h.write(dir+"/cmdline", cmdline)
	h.write(dir+"/stat", statLine(pid, "qemu-system-x86", total, start))
	h.write(dir+"/status", "Name:\tqemu-system-x86\nVmPeak:\t  900 kB\nVmRSS:\t  46080 kB\nThreads:\t4\n")
	h.remove(dir + "/task")
	for i, th := range append([]thread{{"qemu-system-x86", 7}}, threads...) {
		h.write(fmt.Sprintf("%s/task/%d/stat", dir, pid+i), statLine(pid+i, th.comm, th.ticks, start+uint64(i)))
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
