package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/prometheus"
)

// insideEnv tells the test binary that it is process 1 of the cluster's
// namespaces, and names the folder for everything of this run.
const insideEnv = "NODEAGENT_TEST_E2E_INSIDE"

// controllers are the hierarchies of control groups, version 1, that nodes get
// a part of.
func controllers() []string {
	return []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified"}
}

// groupName is the cluster's part of each hierarchy.
const groupName = "nodeagent-e2e"

const groupRoot = "/sys/fs/cgroup"

// Missing says why a cluster cannot run here; nil when it can.
func Missing() error {
	if os.Getuid() != 0 {
		return errors.New("root is needed for namespaces and mounts")
	}
	for _, tool := range []string{"containerd", "ctr", "runc", "iptables", "ip", "unshare", "nsenter", "setpriv", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("find %s (test/install.sh e2e installs it): %w", tool, err)
		}
	}
	if _, err := os.Stat(filepath.Join(groupRoot, "memory")); err != nil {
		return fmt.Errorf("the nodes need control groups of version 1: %w", err)
	}
	return errors.Join(cluster.MissingNodes(), prometheus.Missing())
}

// Run runs the package's tests, inside the cluster's namespaces if the tier
// is there, and returns the exit code.
func Run(m *testing.M) int {
	if os.Getenv(insideEnv) != "" || Missing() != nil {
		return m.Run()
	}
	code, err := enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// enter starts this program anew in the namespaces and waits for its end.
func enter() (code int, err error) {
	dir, err := os.MkdirTemp("", "nodeagent-e2e-")
	if err != nil {
		return 1, fmt.Errorf("make a folder for the cluster: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), removeGroups()) }()
	args := append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--ipc", "--propagation", "private", "--", os.Args[0]}, os.Args[1:]...)
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	ended, err := hosttest.StartTethered(cmd, syscall.SIGKILL)
	if err != nil {
		return 1, fmt.Errorf("enter the cluster's namespaces: %w", err)
	}
	err = <-ended
	if status, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(status.ExitCode(), 1), nil
	}
	return 0, err
}

// removeGroups removes the control groups that the nodes leave, the deepest
// first: a group goes when nothing is in it.
func removeGroups() error {
	var errs []error
	for _, controller := range controllers() {
		var groups []string
		top := filepath.Join(groupRoot, controller, groupName)
		err := filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, name)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		errs = append(errs, err)
		for i := range groups {
			if err := os.Remove(groups[len(groups)-1-i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove a node's control group: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}
