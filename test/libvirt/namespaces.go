package libvirt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The folders of the bed that take the place of the machine's.
const (
	etcDir   = "etc"
	runDir   = "run"
	libDir   = "lib"
	cacheDir = "cache"
	logDir   = "log"
	imageDir = "images"
)

// initScript is process 1 of the bed's PID namespace. It hides the machine's
// libvirt and cgroups behind the bed's, and then only reaps: libvirtd leaves
// every QEMU to process 1, and a QEMU that nobody reaps looks alive to it.
// Descriptor 3 is a pipe whose other end the starting process holds; when that
// closes, by Close or by death, the script ends what runs and removes $1. $2 is
// the folder for libvirtd's sockets, if that is not in $1.
const initScript = `set -eu
mount --make-rprivate /
mount -t proc proc /proc
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run
if [ -n "$2" ]; then
	mkdir -p /run/libvirt
	mount --bind "$2" /run/libvirt
fi
if [ -e "$1/passwd" ]; then
	mount --bind "$1/passwd" /etc/passwd
fi
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
mount --bind "$1/log" /var/log
echo ready
exec >/dev/null
cat <&3 &
wait $!
set +e
kill -9 -1
wait
for attempt in 1 2 3 4 5; do rm -rf "$1" && exit; done
`

// closeTimeout is how long process 1 may take to end the bed before it is
// killed, and all below it with it.
const closeTimeout = 20 * time.Second

// namespaces are what separates the bed from the machine; they live as long
// as their process 1.
type namespaces struct {
	init   *exec.Cmd
	alive  *os.File // process 1 ends when this end of its pipe closes
	stderr *bytes.Buffer
	pid    string // names the PID namespace, as /proc/PID/ns/pid does
}

// enclose starts process 1 in new namespaces whose libvirt folders are below dir.
func enclose(dir string, options Options) (*namespaces, error) {
	end, alive, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the bed's pipe: %w", err)
	}
	defer func() { _ = end.Close() }()
	ns := &namespaces{
		init:   exec.Command("/bin/sh", "-c", initScript, "sh", dir, options.Pod.volume()),
		alive:  alive,
		stderr: new(bytes.Buffer),
	}
	flags := uintptr(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS)
	if !options.HostNetwork {
		flags |= syscall.CLONE_NEWNET
	}
	// A session of its own keeps a terminal's Ctrl-C away from the bed.
	ns.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	ns.init.Env = []string{"PATH=" + os.Getenv("PATH")}
	ns.init.Dir = "/"
	ns.init.Stderr = ns.stderr
	ns.init.ExtraFiles = []*os.File{end}
	stdout, err := ns.init.StdoutPipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the bed's pipe: %w", err), alive.Close())
	}
	if err := ns.init.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the bed's process 1: %w", err), alive.Close())
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		ended := ns.close()
		return nil, fmt.Errorf("mount the bed's folders: %w: %s", errors.Join(err, ended), strings.TrimSpace(ns.stderr.String()))
	}
	ns.pid, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", ns.init.Process.Pid))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("name the bed's PID namespace: %w", err), ns.close())
	}
	return ns, nil
}

// close ends process 1 and so everything in its namespaces.
func (ns *namespaces) close() error {
	if err := ns.alive.Close(); err != nil {
		return fmt.Errorf("end the bed: %w", err)
	}
	deadline := time.AfterFunc(closeTimeout, func() { _ = ns.init.Process.Kill() })
	defer deadline.Stop()
	// Process 1's own exit status says nothing that matters any more.
	var status *exec.ExitError
	if err := ns.init.Wait(); err != nil && !errors.As(err, &status) {
		return fmt.Errorf("wait for the bed's process 1: %w", err)
	}
	return nil
}

// Init is process 1 of the bed, as seen from the machine.
func (h *Host) Init() int { return h.ns.init.Process.Pid }

// Command makes a command that runs inside the bed: it sees the bed's
// processes, its network, and its libvirt below /run and /var/lib.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(h.Init()), "--mount", "--pid", "--net", "--", name}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}
