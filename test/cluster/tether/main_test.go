package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
)

func TestLocate(t *testing.T) {
	folder, name, err := locate("/tmp/nodeagent-cluster-1/bin/etcd")
	if err != nil || folder != "/tmp/nodeagent-cluster-1" || name != "etcd" {
		t.Errorf("got %q, %q, %v", folder, name, err)
	}
	for _, self := range []string{
		"/usr/bin/etcd",
		"/tmp/nodeagent-cluster-1/etcd",
		"nodeagent-cluster-1/bin/etcd",
		"etcd",
		"",
	} {
		if folder, _, err := locate(self); err == nil {
			t.Errorf("%q: took %s for a control plane's folder", self, folder)
		}
	}
}

// newProgram lays out a control plane's folder whose only program is the
// shell script, and returns the program's link to the tether.
func newProgram(t *testing.T, script string) (folder, link string) {
	t.Helper()
	top := t.TempDir()
	tether := filepath.Join(top, "tether")
	if err := hosttest.Build(tether, "./test/cluster/tether"); err != nil {
		t.Fatal(err)
	}
	folder = filepath.Join(top, folderPrefix+"test")
	link = filepath.Join(folder, "bin", "program")
	program := filepath.Join(folder, "assets", "program")
	err := errors.Join(
		os.MkdirAll(filepath.Dir(link), 0o755),
		os.MkdirAll(filepath.Dir(program), 0o755),
		os.Symlink(tether, link),
		os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	return folder, link
}

// waitUntil fails the test when the condition does not come true.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestTetherHandsOnArgumentsOutputAndExitCode(t *testing.T) {
	_, link := newProgram(t, "echo \"$@\"; exit 3\n")
	out, err := exec.Command(link, "--help", "a b").Output()
	if string(out) != "--help a b\n" {
		t.Errorf("printed %q", out)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit code 3", err)
	}
}

func TestTetherHandsOnSignals(t *testing.T) {
	folder, link := newProgram(t, `trap 'exit 7' TERM; touch "$1"; while :; do sleep 0.05; done`)
	ready := filepath.Join(folder, "ready")
	cmd := exec.Command(link, ready)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the program runs", func() bool { return exists(ready) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("ended with %v, want exit code 7", err)
	}
	if !exists(folder) {
		t.Error("removed the folder of a parent that lives")
	}
}

func TestTetherEndsTheProgramOfAKilledParent(t *testing.T) {
	folder, link := newProgram(t, "echo $$; exec sleep 1000\n")
	pid, parent := startBelowShell(t, link)
	if err := parent.Kill(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the program ended", func() bool { return !runs(pid) })
	waitUntil(t, "the folder is gone", func() bool { return !exists(folder) })
}

func TestKilledTetherTakesTheProgramAlong(t *testing.T) {
	_, link := newProgram(t, "echo $$; exec sleep 1000\n")
	pid, _ := startBelowShell(t, link)
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	// "pid (name) state ppid …", and the name is sleep.
	tether, err := strconv.Atoi(strings.Fields(string(stat))[3])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(tether, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the program ended", func() bool { return !runs(pid) })
}

// startBelowShell starts the program by its link from a shell, and returns
// the program's process id and the shell.
func startBelowShell(t *testing.T, link string) (pid int, shell *os.Process) {
	t.Helper()
	printed := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command("sh", "-c", `"$0" > "$1" & wait`, link, printed)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The shell may have been killed by the test, or not.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitUntil(t, "the program runs", func() bool {
		text, err := os.ReadFile(printed)
		if err != nil || !bytes.HasSuffix(text, []byte("\n")) {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	return pid, cmd.Process
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// runs reports whether the process lives; one that nobody has reaped does not.
func runs(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Fields(string(stat))[2] != "Z"
}
