package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm/wire"
)

func TestKVM(t *testing.T) {
	m := Start(t, KVM())
	t.Run("has /dev/kvm while kvm_amd is loaded", func(t *testing.T) {
		m.Sh(t, `test -c /dev/kvm; modprobe -r kvm_amd; test ! -e /dev/kvm; modprobe kvm_amd; test -c /dev/kvm`)
	})
	t.Run("has BTF", func(t *testing.T) {
		m.Sh(t, `test -s /sys/kernel/btf/vmlinux; test -s /sys/kernel/btf/kvm`)
	})
	t.Run("makes the links of flow 2", func(t *testing.T) {
		m.Sh(t, `ip link add dummy0 type dummy
			ip link add link dummy0 name vlan0 type vlan id 42
			ip link add br0 type bridge vlan_filtering 1
			ip link set vlan0 master br0
			bridge vlan show dev vlan0
			ip link add link dummy0 name tap0 type macvtap
			ip link add bond0 type bond
			ls /dev/tap*
			for link in bond0 tap0 br0 vlan0 dummy0; do ip link del $link; done`)
	})
	t.Run("a command's streams and status are its own", func(t *testing.T) { testStreams(t, m) })
	t.Run("commands run side by side", func(t *testing.T) { testSideBySide(t, m) })
	t.Run("a background process does not hold its command up", func(t *testing.T) {
		m.Sh(t, `sleep 1000 & echo $! >/tmp/pid`)
		m.Sh(t, `kill $(cat /tmp/pid)`)
	})
	t.Run("a command that hangs is killed", func(t *testing.T) { testCommandHangs(t, m) })
	t.Run("a command reads its input", func(t *testing.T) { testInput(t, m) })
	t.Run("files go in and out", func(t *testing.T) { testShare(t, m) })
	t.Run("runs a binary", func(t *testing.T) { testRunBinary(t, m) })
}

func testStreams(t *testing.T, m *Machine) {
	for script, want := range map[string]Result{
		`echo out; echo err >&2`:                     {"out\n", "err\n", 0},
		`echo before; false; echo after`:             {"before\n", "", 1},
		`false | true`:                               {"", "", 1},
		`exit 3`:                                     {"", "", 3},
		`kill -TERM $$`:                              {"", "", 128 + 15},
		`head -c 300000 /dev/zero | tr '\0' x`:       {strings.Repeat("x", 300000), "", 0},
		`pwd; uname -n; id -u; readlink /proc/1/exe`: {"/share\nnode\n0\n/init\n", "", 0},
	} {
		got, err := m.Exec(t.Context(), script)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %+v", script, got)
		}
	}
	if _, err := m.Run(t.Context(), Command{Argv: []string{"/no/such/program"}}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error of a program that is not there: %v", err)
	}
}

// One command waits for the other: they could not both end one after the other.
func testSideBySide(t *testing.T, m *Machine) {
	m.Sh(t, `mkfifo /tmp/fifo`)
	read := make(chan Result)
	go func() {
		r, err := m.Exec(t.Context(), `cat /tmp/fifo`)
		if err != nil {
			r.Stderr = err.Error()
		}
		read <- r
	}()
	m.Sh(t, `echo through >/tmp/fifo`)
	if got, want := <-read, (Result{"through\n", "", 0}); got != want {
		t.Errorf("%+v", got)
	}
}

func testCommandHangs(t *testing.T, m *Machine) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	started := writerFunc(func(b []byte) {
		if len(b) > 0 {
			cancel()
		}
	})
	_, err := m.Run(ctx, Command{Argv: Script(`echo started; sleep 1001`), Stdout: started})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	m.Sh(t, `! pgrep -f 'sleep 100[1]'`)
}

func testInput(t *testing.T, m *Machine) {
	var out bytes.Buffer
	code, err := m.Run(t.Context(), Command{
		Argv:  Script(`wc -l; exit 4`),
		Stdin: strings.NewReader("one\ntwo\n"), Stdout: &out,
	})
	if err != nil || code != 4 || out.String() != "2\n" {
		t.Errorf("%d, %v, %q", code, err, &out)
	}
	out.Reset()
	code, err = m.Run(t.Context(), Command{
		Argv: []string{"/bin/bash"}, TTY: &wire.Size{Rows: 24, Cols: 80},
		Stdin: strings.NewReader("tty; stty size; exit 5\n"), Stdout: &out,
	})
	if err != nil || code != 5 || !strings.Contains(out.String(), "/dev/pts/") || !strings.Contains(out.String(), "24 80") {
		t.Errorf("on a terminal: %d, %v, %q", code, err, &out)
	}
}

func testShare(t *testing.T, m *Machine) {
	busybox, err := findTool("busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := copyFile(busybox, filepath.Join(m.Share, "tool/busybox")); err != nil {
		t.Fatal(err)
	}
	m.Sh(t, `mkdir -p captured/sub; /share/tool/busybox uname -r >captured/sub/release`)
	got, err := os.ReadFile(filepath.Join(m.Share, "captured/sub/release"))
	if err != nil || strings.TrimSpace(string(got)) != m.Release {
		t.Errorf("read %q, %v; the machine runs %s", got, err, m.Release)
	}
}

func testRunBinary(t *testing.T, m *Machine) {
	busybox, err := findTool("busybox")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(hosttest.CacheEnv, t.TempDir()) // for what is kept
	t.Chdir(t.TempDir())
	if err := writeFile("testdata/golden", strings.NewReader("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{0, 3} {
		var stdout, stderr bytes.Buffer
		script := map[int]string{0: `cat testdata/golden; exit 0`, 3: `cat testdata/golden; exit 3`}[want]
		code, err := m.RunBinary(t.Context(), []string{busybox, "sh", "-c", script}, &stdout, &stderr)
		if err != nil || code != want || stdout.String() != "from the host\n" {
			t.Errorf("%d, %v, %q, %q", code, err, &stdout, &stderr)
		}
		kept := regexp.MustCompile(`kept in (\S+)`).FindStringSubmatch(stderr.String())
		if (kept != nil) != (want != 0) {
			t.Fatalf("status %d: standard error %q", want, &stderr)
		}
		if kept == nil {
			continue
		}
		dmesg, err := os.ReadFile(filepath.Join(kept[1], "dmesg"))
		if err != nil || !bytes.Contains(dmesg, []byte("Linux version "+m.Release)) {
			t.Errorf("kept dmesg %q, %v", dmesg, err)
		}
		if !exists(filepath.Join(kept[1], "console")) {
			t.Error("the console is not kept")
		}
	}
}

func TestSRIOV(t *testing.T) {
	m := Start(t, SRIOV())
	m.Sh(t, `cd /sys/class/net/eth0/device
		test $(basename $(readlink driver)) = igb
		test $(cat sriov_totalvfs) = 7
		ip link set eth0 up
		echo 7 >sriov_numvfs
		test $(ls -d virtfn* | wc -l) = 7
		test $(ls -d /sys/bus/pci/drivers/igbvf/0000:* | wc -l) = 7`)
	m.Sh(t, `test $(ls /sys/kernel/iommu_groups | wc -l) -gt 7`)
	m.Sh(t, `ip link set eth0 vf 0 mac 52:54:00:aa:00:01 vlan 100 spoofchk on trust on
		ip -d link show eth0 | grep 'vf 0 .*52:54:00:aa:00:01.*vlan 100'`)
	m.Sh(t, `cd /sys/class/net/eth0/device
		vf=$(basename $(readlink virtfn3))
		group=$(basename $(readlink virtfn3/iommu_group))
		test $(ls virtfn3/iommu_group/devices) = $vf
		echo $vf >virtfn3/driver/unbind
		echo vfio-pci >virtfn3/driver_override
		echo $vf >/sys/bus/pci/drivers_probe
		test $(basename $(readlink virtfn3/driver)) = vfio-pci
		test -c /dev/vfio/$group`)
}

func TestNUMA(t *testing.T) {
	m := Start(t, NUMA())
	m.Sh(t, `test $(cat /sys/devices/system/node/online) = 0-1
		for node in 0 1; do
			test $(cat /sys/devices/system/node/node$node/cpulist) = $node
			test $(cat /sys/class/net/eth$node/device/numa_node) = $node
			test $(cat /sys/class/net/eth$node/device/sriov_totalvfs) = 7
		done`)
	m.Sh(t, `for node in 0 1; do
			pages=/sys/devices/system/node/node$node/hugepages/hugepages-2048kB
			echo $((10 + node)) >$pages/nr_hugepages
			test $(cat $pages/free_hugepages) = $((10 + node))
		done
		grep 'HugePages_Total: *21' /proc/meminfo`)
	m.Sh(t, `test $(cat /sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages) = 1`)
}

func TestVariant(t *testing.T) {
	p := SRIOV()
	p.Append, p.Modules = []string{"intel_iommu=off"}, nil
	m := Start(t, p)
	m.Sh(t, `test $(ls /sys/kernel/iommu_groups | wc -l) = 0; test ! -e /dev/kvm; test ! -e /sys/class/net/eth0`)
	t.Run("a guest that panics says so", func(t *testing.T) {
		_, err := m.Exec(t.Context(), `echo c >/proc/sysrq-trigger`)
		if err == nil || !strings.Contains(err.Error(), "the guest stopped") || !strings.Contains(err.Error(), "sysrq triggered crash") {
			t.Errorf("error %v", err)
		}
	})
}

func TestGuestThatHangs(t *testing.T) {
	p := KVM()
	p.Modules = nil
	m := Start(t, p)
	m.grace = time.Millisecond
	if err := m.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Exec(over, `true`)
	if err == nil || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("error %v", err)
	}
	if err := m.process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("QEMU is still there: %v", err)
	}
}

// stuck is a machine whose CPUs never start.
func stuck(name string) Profile {
	p := KVM()
	p.Name, p.QEMU = name, []string{"-S"}
	return p
}

func TestBootThatHangs(t *testing.T) {
	hosttest.Need(t, hosttest.VM, Missing())
	p := stuck("stuck-" + filepath.Base(t.TempDir()))
	p.BootTimeout = 100 * time.Millisecond
	_, err := Boot(t.Context(), p)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "end of the console") {
		t.Errorf("error %v", err)
	}
	if running(t, p.Name) {
		t.Error("QEMU is still there")
	}
}

// helperEnv makes TestKilledTestHelper boot the stuck machine that it names.
const helperEnv = "NODEAGENT_VM_TEST_HELPER"

func TestKilledTestHelper(t *testing.T) {
	name := os.Getenv(helperEnv)
	if name == "" {
		t.Skip("is a part of TestKilledTestLeavesNoQEMU")
	}
	m, err := Boot(t.Context(), stuck(name))
	t.Fatal(m, err)
}

func TestKilledTestLeavesNoQEMU(t *testing.T) {
	hosttest.Need(t, hosttest.VM, Missing())
	tmp := t.TempDir()
	name := "killed-" + strings.ReplaceAll(tmp, "/", "-")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledTestHelper$")
	cmd.Env = append(os.Environ(), helperEnv+"="+name, "TMPDIR="+tmp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "QEMU runs", func() bool { return running(t, name) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // was killed
	await(t, "QEMU is gone", func() bool { return !running(t, name) })
}

// running tells whether the machine's QEMU is among the processes.
func running(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		cmdline, err := os.ReadFile(file)
		if err == nil && bytes.Contains(cmdline, []byte("\x00nodeagent-"+name+"\x00")) {
			return true
		}
	}
	return false
}

// await polls for what other processes do; the test's own deadline ends it.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) {
	f(b)
	return len(b), nil
}
