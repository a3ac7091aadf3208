package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/vm/wire"
)

type mount struct{ kind, dir, source, options string }

// mounts is what systemd would have mounted on a node.
func mounts() []mount {
	return []mount{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", ""},
		{"tmpfs", "/run", "tmpfs", "mode=755"},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
		{"devpts", "/dev/pts", "devpts", "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", "mode=1777"},
		{"hugetlbfs", "/dev/hugepages", "hugetlbfs", "pagesize=2M"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=700"},
		{"debugfs", "/sys/kernel/debug", "debugfs", ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", ""},
		{"securityfs", "/sys/kernel/security", "securityfs", ""},
	}
}

func setup() error {
	for _, m := range mounts() {
		if err := m.make(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("node")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	for _, argv := range [][]string{
		{"/usr/sbin/ip", "link", "set", "lo", "up"},
		{"/sbin/modprobe", "-a", "9p", "9pnet_virtio"},
	} {
		if err := run(argv); err != nil {
			return err
		}
	}
	share := mount{"9p", wire.ShareDir, wire.ShareTag, "trans=virtio,version=9p2000.L,msize=512000"}
	return share.make()
}

func (m mount) make() error {
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	if err := unix.Mount(m.source, m.dir, m.kind, 0, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
	}
	return nil
}

func run(argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}
