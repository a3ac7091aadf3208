// Command tether runs one program of a control plane, and ends it when the
// process that asked for it is gone.
//
// envtest puts its servers into process groups of their own and stops them
// only when it is told to: a test that is killed, times out or panics would
// leave them running. So envtest starts a link to the tether in their place:
//
//	FOLDER/bin/etcd     a link to the tether, named like the program
//	FOLDER/assets/etcd  the program
//
// The tether hands on arguments, output, signals and the exit code. Once
// orphaned it ends the program and removes FOLDER.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// folderPrefix keeps a wrong first argument from costing a folder that
	// is not a control plane's.
	folderPrefix = "nodeagent-cluster-"
	// lookup is how often the tether looks after its parent.
	lookup = 250 * time.Millisecond
	// grace is how long an orphaned program may take to end by itself.
	grace = 10 * time.Second
)

func main() {
	code, err := run(os.Args[0], os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tether:", err)
	}
	os.Exit(code)
}

func run(self string, args []string) (int, error) {
	parent := os.Getppid()
	folder, name, err := locate(self)
	if err != nil {
		return 2, err
	}
	// The kernel kills the program with the thread that started it; the
	// main thread lives as long as the tether.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	cmd := exec.Command(filepath.Join(folder, "assets", name), args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own: a signal to the tether's group must arrive once,
	// the API server takes a second one as an order to drop everything.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 2, fmt.Errorf("start %s: %w", name, err)
	}
	if orphaned := watch(cmd, parent, signals); orphaned {
		// Both tethers of a control plane do this; the last one to end
		// leaves nothing.
		if err := os.RemoveAll(folder); err != nil {
			return 2, fmt.Errorf("clean up: %w", err)
		}
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// watch waits for the program to end, and sees to it that it does when the
// parent is gone. It reports whether that was so.
func watch(cmd *exec.Cmd, parent int, signals <-chan os.Signal) (orphaned bool) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// How it ended is in the process state.
		_ = cmd.Wait()
	}()
	tick := time.NewTicker(lookup)
	defer tick.Stop()
	var overdue <-chan time.Time
	for {
		// A signal that cannot be sent finds the program ended.
		select {
		case <-ended:
			return orphaned
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case <-overdue:
			_ = cmd.Process.Kill()
		case <-tick.C:
			// An orphan gets a new parent at once, so this cannot
			// mistake a stranger with the same number for the old one.
			if !orphaned && os.Getppid() != parent {
				orphaned = true
				overdue = time.After(grace)
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
		}
	}
}

// locate returns the control plane's folder and the program's name from the
// path the tether was started by.
func locate(self string) (folder, name string, err error) {
	bin, name := filepath.Split(self)
	folder = filepath.Dir(filepath.Clean(bin))
	if !filepath.IsAbs(self) || filepath.Base(bin) != "bin" || !strings.HasPrefix(filepath.Base(folder), folderPrefix) {
		return "", "", errors.New("not started as /…/" + folderPrefix + "*/bin/PROGRAM")
	}
	return folder, name, nil
}
