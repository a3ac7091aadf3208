package libvirt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// parentEnv makes the test binary the parent of a bed, for
// TestBedEndsWithItsParent to kill.
const parentEnv = "NODEAGENT_TEST_BED_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentEnv) == "" {
		os.Exit(m.Run())
	}
	if err := holdBed(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// holdBed starts a bed with a domain, prints where it is, and waits to be killed.
func holdBed() error {
	ctx := context.Background()
	host, err := Start(ctx, Options{HostNetwork: true})
	if err != nil {
		return err
	}
	if err := host.StartDomain(ctx, Domain{Name: "orphan", NICs: []NIC{{}}}); err != nil {
		return errors.Join(err, host.Close())
	}
	tap, err := tapOf(ctx, host, "orphan")
	if err != nil {
		return errors.Join(err, host.Close())
	}
	fmt.Println(host.Dir(), host.ns.pid, tap)
	select {}
}

func TestBedEndsWithItsParent(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, Missing())
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentEnv+"=1")
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the parent did not start a bed: %v", err)
	}
	fields := strings.Fields(line)
	if len(fields) != 3 {
		t.Fatalf("the parent printed %q", line)
	}
	left := trace{dir: fields[0], pid: fields[1], taps: fields[2:]}
	if got := left.find(t); len(got) < 4 {
		t.Errorf("the running bed shows only %q: the search itself is broken", got)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	wait(t, "the bed's end", func() bool { return len(left.find(t)) == 0 })
}

func TestCloseLeavesNothing(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, Missing())
	host, err := Start(t.Context(), Options{HostNetwork: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	start(t, host, Domain{Name: "one", NICs: []NIC{{}, {}}})
	if err := host.Hang("one"); err != nil {
		t.Fatal(err)
	}
	left := trace{dir: host.Dir(), pid: host.ns.pid}
	for _, name := range []string{"net.0.name", "net.1.name"} {
		left.taps = append(left.taps, stats(t, host, "one", "interface")[name])
	}
	if got := left.find(t); len(got) < 5 {
		t.Errorf("the running bed shows only %q: the search itself is broken", got)
	}
	if err := host.Close(); err != nil {
		t.Error(err)
	}
	if got := left.find(t); len(got) > 0 {
		t.Errorf("the closed bed left %q", got)
	}
	if err := host.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestBedsDoNotSeeEachOther(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, Missing())
	private, shared := New(t, Options{}), New(t, Options{HostNetwork: true})
	start(t, private, Domain{Name: "twin", NICs: []NIC{{Tap: "bedtwin0"}}})
	start(t, shared, Domain{Name: "twin", NICs: []NIC{{}}})

	if _, err := net.InterfaceByName("bedtwin0"); err == nil {
		t.Error("the tap of the private bed is in the machine's network")
	}
	tap := stats(t, shared, "twin", "interface")["net.0.name"]
	if _, err := net.InterfaceByName(tap); err != nil {
		t.Errorf("the tap of the shared bed is not in the machine's network: %v", err)
	}
	if out, err := private.Command(t.Context(), "ip", "link", "show", "bedtwin0").CombinedOutput(); err != nil {
		t.Errorf("the tap is not in the private bed's network: %v: %s", err, out)
	}
	if err := private.Destroy(t.Context(), "twin"); err != nil {
		t.Fatal(err)
	}
	wantState(t, shared, "twin", "running")
	wantState(t, private, "twin", "shut off")
}

// TestBedKeepsItsCgroups shows that libvirtd made no cgroup, which would stay.
func TestBedKeepsItsCgroups(t *testing.T) {
	host := New(t, Options{})
	start(t, host, Domain{Name: "one"})
	pid := qemuPID(t, host, "one")
	want, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the QEMU is in other cgroups than the test:\n%s", got)
	}
}

// trace is what a bed is known by on the machine.
type trace struct {
	dir, pid string
	taps     []string
}

// find lists what there is of the bed.
func (tr trace) find(t *testing.T) []string {
	t.Helper()
	var found []string
	if _, err := os.Stat(tr.dir); err == nil {
		found = append(found, "folder "+tr.dir)
	}
	bed := Host{dir: tr.dir, ns: &namespaces{pid: tr.pid}}
	processes, err := bed.processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range processes {
		found = append(found, "process "+strconv.Itoa(pid))
	}
	for _, tap := range tr.taps {
		if _, err := net.InterfaceByName(tap); err == nil {
			found = append(found, "interface "+tap)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), tr.dir) {
		found = append(found, "mount of "+tr.dir)
	}
	return found
}

func tapOf(ctx context.Context, host *Host, domain string) (string, error) {
	stats, err := host.Stats(ctx, domain, "interface")
	return stats["net.0.name"], err
}

func start(t *testing.T, host *Host, domains ...Domain) {
	t.Helper()
	if err := host.StartDomains(t.Context(), domains...); err != nil {
		t.Fatal(err)
	}
}

func stats(t *testing.T, host *Host, domain string, groups ...string) map[string]string {
	t.Helper()
	stats, err := host.Stats(t.Context(), domain, groups...)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// number is a statistic's value, 0 when it is not there (yet).
func number(t *testing.T, stats map[string]string, name string) int64 {
	t.Helper()
	text, ok := stats[name]
	if !ok {
		return 0
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

func qemuPID(t *testing.T, host *Host, domain string) int {
	t.Helper()
	pid, err := host.QEMUPID(domain)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func wantState(t *testing.T, host *Host, domain string, want ...string) {
	t.Helper()
	got, err := host.State(t.Context(), domain)
	if err != nil {
		t.Error(err)
	} else if !slices.Contains(want, got) {
		t.Errorf("state of %s is %q, want %q", domain, got, want)
	}
}

// wait ends the test when the condition does not come true in the time that
// the whole test run has, less what closing a bed takes.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-closeTimeout))
		defer cancel()
	}
	if err := hosttest.Poll(ctx, what, func() (bool, error) { return done(), nil }); err != nil {
		t.Fatal(err)
	}
}

// alive reports whether there is such a process, stopped or not.
func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
