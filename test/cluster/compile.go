package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// compile is the compiler of every day: the go command.
func compile(ctx context.Context, b batch, c component, out string) error {
	// The kernel kills the go command with the thread that started it, so
	// this goroutine keeps its thread until the command is over.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "go", compileArgs(b, c, out)...)
	cmd.Dir = b.module
	cmd.Env = append(os.Environ(),
		"CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH,
		// Even when only interrupted, the go command leaves its work
		// folder; beside the binary it goes the way of the whole build.
		"GOTMPDIR="+filepath.Dir(out))
	// A group, so that a cancelled build takes its compilers along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(text)))
	}
	return nil
}

// compileArgs is the command line of the go command.
func compileArgs(b batch, c component, out string) []string {
	// No VCS stamp: git refuses a checkout that another user owns.
	args := []string{"build", "-mod=readonly", "-buildvcs=false", "-trimpath"}
	if b.flags != "" {
		args = append(args, "-ldflags", b.flags)
	}
	return append(args, "-o", out, c.pkg)
}
