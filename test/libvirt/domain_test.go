package libvirt

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDomainsWork(t *testing.T) {
	host := New(t, Options{})
	start(t, host,
		Domain{Name: "quiet", VCPUs: 2, CDROM: true, IOThreads: 2, NICs: []NIC{{}}},
		Domain{Name: "busy", Workload: Busy, Disks: []Disk{{Format: "raw"}}},
		Domain{Name: "chatty", Workload: DiskAndNet, NICs: []NIC{{}}, Disks: []Disk{{}, {Format: "raw"}}},
	)
	for _, domain := range []string{"quiet", "busy", "chatty"} {
		wantState(t, host, domain, "running")
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", qemuPID(t, host, domain)))
		if err != nil {
			t.Error(err)
		}
		if got := strings.TrimSpace(string(comm)); !strings.HasPrefix(got, "qemu-system") {
			t.Errorf("the process of %s is %s", domain, got)
		}
	}
	t.Run("traffic moves every counter of disks and NIC", func(t *testing.T) { trafficMoves(t, host) })
	t.Run("busy takes a processor and idle does not", func(t *testing.T) { busyTakesProcessor(t, host) })
}

func trafficMoves(t *testing.T, host *Host) {
	// For the NIC more than its rings have entries (256): the boot sector's
	// driver must not stop after its first lap.
	wanted := map[string]int64{"net.0.rx.pkts": 300, "net.0.rx.bytes": 300, "net.0.tx.pkts": 300, "net.0.tx.bytes": 300}
	for _, disk := range []string{"block.0", "block.1"} {
		for _, name := range []string{".rd.reqs", ".rd.bytes", ".wr.reqs", ".wr.bytes"} {
			wanted[disk+name] = 10
		}
	}
	first := stats(t, host, "chatty", "interface", "block")
	wait(t, "the traffic's counters", func() bool {
		now := stats(t, host, "chatty", "interface", "block")
		for name, growth := range wanted {
			if number(t, now, name)-number(t, first, name) < growth {
				return false
			}
		}
		return true
	})
}

func busyTakesProcessor(t *testing.T, host *Host) {
	wait(t, "the idle domain to leave its BIOS", func() bool {
		return number(t, stats(t, host, "quiet", "block"), "block.0.rd.reqs") > 0
	})
	cpu := func(domain string) int64 { return number(t, stats(t, host, domain, "cpu-total"), "cpu.time") }
	idle, busy := cpu("quiet"), cpu("busy")
	const second = 1e9
	wait(t, "a busy domain's CPU time", func() bool { return cpu("busy")-busy > second })
	busy, idle = cpu("busy")-busy, cpu("quiet")-idle
	if idle > busy/4 {
		t.Errorf("the idle domain took %d ns of CPU time while the busy one took %d", idle, busy)
	}
}

func TestDomainXML(t *testing.T) {
	domain := Domain{Name: "vm", VCPUs: 2, IOThreads: 1, CDROM: true, Workload: DiskAndNet, NICs: []NIC{{Tap: "tap0"}, {Model: "e1000"}}}
	got, err := domain.filled().xml("/images")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/domain.xml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got)+"\n", "\n")); diff != "" {
		t.Errorf("domain XML (-want +got):\n%s", diff)
	}
}

func TestParseStats(t *testing.T) {
	got := parseStats("Domain: 'vm'\n  state.state=1\n  block.0.path=/a=b\n\n")
	want := map[string]string{"state.state": "1", "block.0.path": "/a=b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestParseInnermostPID(t *testing.T) {
	for name, test := range map[string]struct {
		status string
		pid    int
		ok     bool
	}{
		"nested":       {"Name:\tqemu\nNSpid:\t4711\t12\n", 12, true},
		"not nested":   {"NSpid:\t4711\n", 4711, true},
		"an old Linux": {"Name:\tqemu\nPid:\t1\n", 0, false},
		"cut off":      {"NSpid:\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			pid, ok := parseInnermostPID([]byte(test.status))
			if pid != test.pid || ok != test.ok {
				t.Errorf("got %d, %t; want %d, %t", pid, ok, test.pid, test.ok)
			}
		})
	}
}
