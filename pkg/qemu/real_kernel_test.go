package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// cgroupsMissing says why no control group with a CPU quota can be made here,
// and where which version is mounted.
func cgroupsMissing() (mount string, unified bool, err error) {
	if os.Getuid() != 0 {
		return "", false, errors.New("need root to make control groups")
	}
	root, err := hostfs.Open("/")
	if err != nil {
		return "", false, err
	}
	if controllers, err := root.ReadString(cgroupRoot + "/cgroup.controllers"); err == nil {
		if !strings.Contains(" "+controllers+" ", " cpu ") {
			return "", false, fmt.Errorf("version 2 has no cpu controller but %q", controllers)
		}
		return cgroupRoot, true, nil
	}
	if there, err := root.Exists(cgroupRoot + "/cpu/cpu.cfs_quota_us"); err != nil || !there {
		return "", false, errors.Join(errors.New("no cpu controller is mounted"), err)
	}
	return cgroupRoot, false, nil
}

// makeGroup makes a control group, which ends with the test.
func makeGroup(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "the control group is empty", func() bool {
			err := os.Remove(dir)
			return err == nil || errors.Is(err, os.ErrNotExist)
		})
	})
}

func writeTo(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFrom(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestAQuotaOfTheKernels puts a process into a real group with a fifth of a CPU,
// whichever version the machine has.
func TestAQuotaOfTheKernels(t *testing.T) {
	mount, unified, err := cgroupsMissing()
	hosttest.Need(t, hosttest.Libvirt, err)
	name := "machine-qemu\\x2d" + strconv.Itoa(os.Getpid()) + "\\x2dweb.scope"
	cpu, memory := filepath.Join(mount, "cpu", name), filepath.Join(mount, "memory", name)
	dirs := []string{cpu, memory}
	if unified {
		cpu, memory = filepath.Join(mount, name), filepath.Join(mount, name)
		dirs = []string{cpu}
		writeTo(t, mount+"/cgroup.subtree_control", "+cpu +memory")
	} else if _, err := os.Stat(mount + "/unified/cgroup.procs"); err == nil {
		dirs = append(dirs, filepath.Join(mount, "unified", name))
	}
	for _, dir := range dirs {
		makeGroup(t, dir)
	}
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM")
	if unified {
		writeTo(t, cpu+"/cpu.max", "20000 100000")
		writeTo(t, memory+"/memory.max", "100M")
	} else {
		writeTo(t, cpu+"/cpu.cfs_quota_us", "20000")
		writeTo(t, memory+"/memory.limit_in_bytes", "100M")
	}
	for _, dir := range dirs {
		writeTo(t, dir+"/cgroup.procs", strconv.Itoa(p.pid()))
	}
	s := realScanner(t)
	if first := readOne(t, s, p.pid()).Process.Cgroup; first.CPULimit != Some(200_000_000) || first.MemoryLimit != Some(100<<20) ||
		!first.Memory.Set || first.MemoryHeadroom != Some(100<<20-first.Memory.V) || !first.Events.OOMKill.Set {
		t.Errorf("%+v", first)
	}
	p.order("burn CPU 0/KVM 150")
	before, _ := parseCPUStat(readFrom(t, cpu+"/cpu.stat"))
	got := readOne(t, s, p.pid()).Process.Cgroup
	after, _ := parseCPUStat(readFrom(t, cpu+"/cpu.stat"))
	if before.throttled.V == 0 {
		t.Errorf("150 ms of CPU time in a fifth of a CPU were not throttled: %+v", before)
	}
	between(t, "periods", before.periods, got.Periods, after.periods)
	between(t, "throttled", before.throttled, got.Throttled, after.throttled)
	between(t, "throttled time", before.time, got.ThrottledTime, after.time)
	if pressure := filepath.Join(dirs[len(dirs)-1], "cpu.pressure"); exists(pressure) {
		between(t, "pressure", Some(1), got.CPUPressure.Some, Some(1<<62))
		want, err := parsePressure(readFrom(t, pressure))
		if err != nil {
			t.Fatal(err)
		}
		between(t, "pressure", got.CPUPressure.Some, want.Some, Some(1<<62))
	} else if got.CPUPressure.Some.Set {
		t.Errorf("pressure of a kernel that knows none: %+v", got.CPUPressure)
	}
	e := s.processes[p.pid()].qemu
	held := []*hostfs.File{e.cgroup.cpu[0].stat, e.cgroup.memory[0].usage, e.cgroup.events}
	for _, file := range held {
		if !file.Open() {
			t.Errorf("%s is not kept open", file.Name())
		}
	}
	p.end()
	readOne(t, s, p.pid())
	for _, file := range held {
		if file.Open() {
			t.Errorf("after its end, %s is open", file.Name())
		}
	}
	if s.groups[groupKey{cpuGroups, cpu}] != 0 {
		t.Errorf("after its end, groups %v", s.groups)
	}
}

// TestGroupsSeenFromAContainer: with a namespace of control groups of its own, as
// runtimes give a container on version 2, the agent is told paths from its own group.
func TestGroupsSeenFromAContainer(t *testing.T) {
	_, _, err := cgroupsMissing()
	hosttest.Need(t, hosttest.Libvirt, err)
	host := t.TempDir()
	for name, mount := range map[string]func(string) error{
		"proc":          func(at string) error { return unix.Mount("/proc", at, "", unix.MS_BIND|unix.MS_REC, "") },
		"sys/fs/cgroup": func(at string) error { return unix.Mount("cgroup2", at, "cgroup2", 0, "") },
	} {
		at := filepath.Join(host, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := mount(at); err != nil {
			t.Fatalf("mount %s: %v", name, err)
		}
		t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	}
	top := filepath.Join(host, "sys/fs/cgroup", fmt.Sprintf("nodeagent-test-%d", os.Getpid()))
	agent, vm := filepath.Join(top, "agent"), filepath.Join(top, "pod"+podUID)
	for _, dir := range []string{top, agent, filepath.Join(agent, "container"), vm, filepath.Join(vm, "compute")} {
		makeGroup(t, dir)
	}
	if !exists(filepath.Join(vm, "cpu.pressure")) {
		t.Skip("this kernel measures no pressure")
	}
	p := pretendQEMU(t, t.TempDir(), "web", nil, "CPU 0/KVM")
	writeTo(t, filepath.Join(vm, "compute/cgroup.procs"), strconv.Itoa(p.pid()))
	p.order("burn CPU 0/KVM 20")

	into, err := os.Open(filepath.Join(agent, "container"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = into.Close() }()
	reader := exec.Command(os.Args[0], host, strconv.Itoa(p.pid()))
	reader.Env = append(os.Environ(), pretendEnv+"=boxed in")
	reader.Stderr = os.Stderr
	reader.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWCGROUP, Unshareflags: unix.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(into.Fd()),
	}
	out, err := reader.Output()
	if err != nil {
		t.Fatal(err)
	}
	have, want := strings.Fields(string(out)), []string{podUID, strings.TrimPrefix(vm, host)}
	if len(have) != 3 || have[0] != want[0] || have[1] != want[1] {
		t.Fatalf("have %q, want %q and a pressure", have, want)
	}
	told, err := strconv.ParseUint(have[2], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	now, err := parsePressure(readFrom(t, filepath.Join(vm, "cpu.pressure")))
	if err != nil {
		t.Fatal(err)
	}
	between(t, "pressure", Some(0), Some(told), now.Some)
}

// readBoxedIn prints the pod, the topmost group and the CPU pressure of a process,
// as they are seen by who sees only the own group at the usual place.
func readBoxedIn() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fail(unix.Mount("cgroup2", cgroupRoot, "cgroup2", 0, ""))
	root, err := hostfs.Open(os.Args[1])
	fail(err)
	pid, err := strconv.Atoi(os.Args[2])
	fail(err)
	s := newScanner(Options{Root: root, Now: time.Now, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	r, err := s.read(context.Background(), slab{})
	fail(err)
	for _, vm := range r.vms {
		if vm.Process.PID == pid && vm.Process.Cgroup.CPUPressure.Some.Set {
			fmt.Println(vm.Pod, s.processes[pid].qemu.cgroup.groups.pressure, vm.Process.Cgroup.CPUPressure.Some.V)
		}
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// TestARealTap holds a tap as a QEMU does, in a network namespace of its own,
// and counts frames in both directions.
func TestARealTap(t *testing.T) {
	var missing error
	if os.Getuid() != 0 {
		missing = errors.New("need root to make a tap")
	} else if !exists("/dev/net/tun") {
		missing = errors.New("need /dev/net/tun")
	}
	hosttest.Need(t, hosttest.Libvirt, missing)
	runtime.LockOSThread() // never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	tap, host := openTap(t, "vnet7")
	p := pretendQEMU(t, t.TempDir(), "web", func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{tap} }, "CPU 0/KVM")
	s := realScanner(t)
	frame := make([]byte, 100)
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})

	before := readOne(t, s, p.pid()).Interfaces
	if len(before) != 1 || before[0].Name != "vnet7" {
		t.Fatalf("interfaces %+v", before)
	}
	for range 5 { // the guest sends
		if _, err := tap.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 { // the host sends to it
		if err := unix.Sendto(host, frame, 0, &unix.SockaddrLinklayer{Ifindex: indexOf(t, "vnet7")}); err != nil {
			t.Fatal(err)
		}
	}
	for got := 0; got < 3; { // a tap counts what was taken out of it
		data := make([]byte, 2000)
		n, err := tap.Read(data)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(data[:n], frame) {
			got++
		}
	}
	after := readOne(t, s, p.pid()).Interfaces
	sent, received := after[0].Transmit, after[0].Receive
	sent.Packets.V -= before[0].Transmit.Packets.V
	sent.Bytes.V -= before[0].Transmit.Bytes.V
	received.Packets.V -= before[0].Receive.Packets.V
	// The kernel itself may send to the guest, but nobody else sends for it.
	if sent.Packets != Some(5) || sent.Bytes.V != 500 || received.Packets.V < 3 || received.Drops.V != before[0].Receive.Drops.V {
		t.Errorf("from %+v to %+v", before, after)
	}
	p.end()
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestARealMacvtap holds a macvtap, which counts as the guest does, and another
// way round than a tap.
func TestARealMacvtap(t *testing.T) {
	var missing error
	if os.Getuid() != 0 {
		missing = errors.New("need root to make a macvtap")
	}
	hosttest.Need(t, hosttest.Libvirt, missing)
	runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
	if err := errors.Join(unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"link add below type veth peer name wire", "link set below up", "link set wire up",
		"link add link below name macvtap7 type macvtap mode bridge", "link set macvtap7 up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	tap := openMacvtap(t, "macvtap7")
	p := pretendQEMU(t, t.TempDir(), "web", func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{tap} }, "CPU 0/KVM")
	s := realScanner(t)
	before := readOne(t, s, p.pid()).Interfaces
	if len(before) != 1 || before[0].Name != "macvtap7" {
		t.Fatalf("interfaces %+v", before)
	}
	frame := make([]byte, 100)
	copy(frame, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	for range 5 { // the guest sends
		if _, err := tap.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	after := readOne(t, s, p.pid()).Interfaces
	// The kernel itself may send through the interface too.
	if sent := after[0].Transmit.Packets.V - before[0].Transmit.Packets.V; sent < 5 || sent > 20 {
		t.Errorf("from %+v to %+v", before, after)
	}
	host, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(host) }()
	copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	for range 3 { // somebody on the wire sends to all
		if err := unix.Sendto(host, frame, 0, &unix.SockaddrLinklayer{Ifindex: indexOf(t, "wire")}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the frames have arrived", func() bool {
		return readOne(t, s, p.pid()).Interfaces[0].Receive.Packets.V >= after[0].Receive.Packets.V+3
	})
	p.end()
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
}

// openMacvtap opens the character device of a macvtap, which udev makes
// elsewhere. Its number is in the sysfs of this thread's network namespace.
func openMacvtap(t *testing.T, name string) *os.File {
	t.Helper()
	sysfs := t.TempDir()
	if err := unix.Mount("sysfs", sysfs, "sysfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	node := fmt.Sprintf("tap%d", indexOf(t, name))
	var major, minor uint32
	number := readFrom(t, filepath.Join(sysfs, "class/net", name, node, "dev"))
	if err := unix.Unmount(sysfs, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(number), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	// Beside the machine's own devices, and gone with this mount namespace.
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod("/dev/"+node, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/"+node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

// openTap makes a tap in this thread's network namespace and a socket that
// sends to it.
func openTap(t *testing.T, name string) (tap *os.File, host int) {
	t.Helper()
	// Without O_NONBLOCK os.NewFile leaves it to block, as the child's copy does.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
	host, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(host) })
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(host, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name), host
}

func indexOf(t *testing.T, name string) int {
	t.Helper()
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(socket) }()
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFINDEX, request); err != nil {
		t.Fatal(err)
	}
	return int(request.Uint32())
}
