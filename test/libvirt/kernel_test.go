package libvirt_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// link is what ip -json -s link shows of an interface.
type link struct {
	Name  string `json:"ifname"`
	Stats struct {
		RX, TX struct{ Bytes, Packets, Errors, Dropped uint64 }
	} `json:"stats64"`
}

// links reads the network interfaces of the bed.
func links(t *testing.T, host *libvirt.Host) map[string]link {
	t.Helper()
	out, err := host.Command(t.Context(), "ip", "-json", "-s", "link").Output()
	must(t, err)
	var list []link
	must(t, json.Unmarshal(out, &list))
	found := make(map[string]link)
	for _, l := range list {
		found[l.Name] = l
	}
	return found
}

// between checks a number against what was true before and after.
func between(t *testing.T, what string, before uint64, ours qemu.Num, after uint64) {
	t.Helper()
	if !ours.Set || ours.V < before || ours.V > after {
		t.Errorf("%s is %+v, want %d to %d", what, ours, before, after)
	}
}

// TestKernelClassOfAHungQEMUWithoutLibvirt stops both, and holds what is left
// against ip and /proc.
func TestKernelClassOfAHungQEMUWithoutLibvirt(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, VCPUs: 2, NICs: []libvirt.NIC{{}, {}}, IOThreads: 1})
	uuid := uuids(t, host, "chatty")["chatty"]
	pid, err := host.QEMUPID("chatty")
	must(t, err)
	c := collector(t, host, qemu.Options{Groups: map[string]bool{"thread_detail": true}})

	var busy qemu.VM
	eventually(t, "the guest sends and the disk works", func() error {
		busy = vmOf(fresh(t, c), uuid)
		if len(busy.Interfaces) != 2 || busy.Interfaces[0].Transmit.Packets.V < 10 || busy.Process == nil || len(busy.Process.VCPUs) != 2 {
			return fmt.Errorf("%+v, process %+v", busy.Interfaces, busy.Process)
		}
		return nil
	})
	if names := busy.Process.IOThreads; len(names) == 0 || busy.Process.Memory.Anonymous.V < 10<<20 || busy.Process.Memory.Overhead.Set {
		t.Errorf("I/O threads %+v, memory %+v", names, busy.Process.Memory)
	}
	for _, role := range []qemu.Role{qemu.RoleEmulator, qemu.RoleVCPU, qemu.RoleIOThread} {
		used := busy.Process.Threads[role]
		if !used.CPU.Set || !used.System.Set || !used.Delay.Set || !used.Voluntary.Set || !used.Involuntary.Set {
			t.Errorf("%s: %+v", qemu.Roles[role], used)
		}
	}

	// Every number of the taps, while the guest goes on.
	before := links(t, host)
	vm := vmOf(c.Collect(t.Context()), uuid)
	after := links(t, host)
	for _, nic := range vm.Interfaces {
		b, a := before[nic.Name].Stats, after[nic.Name].Stats
		between(t, nic.Name+" receive bytes", b.TX.Bytes, nic.Receive.Bytes, a.TX.Bytes)
		between(t, nic.Name+" receive packets", b.TX.Packets, nic.Receive.Packets, a.TX.Packets)
		between(t, nic.Name+" receive drops", b.TX.Dropped, nic.Receive.Drops, a.TX.Dropped)
		between(t, nic.Name+" transmit bytes", b.RX.Bytes, nic.Transmit.Bytes, a.RX.Bytes)
		between(t, nic.Name+" transmit packets", b.RX.Packets, nic.Transmit.Packets, a.RX.Packets)
		between(t, nic.Name+" transmit drops", b.RX.Dropped, nic.Transmit.Drops, a.RX.Dropped)
	}

	must(t, host.Hang("chatty"))
	must(t, host.KillDaemon(t.Context()))
	eventually(t, "only the kernel is left", func() error {
		vm = vmOf(c.Collect(t.Context()), uuid)
		if vm.Source != qemu.SourceProc {
			return fmt.Errorf("from %s", vm.Source)
		}
		return nil
	})
	if vm.Name != "chatty" || vm.Process.PID != pid || len(vm.VCPUs) != 2 || len(vm.Interfaces) != 2 ||
		vm.VCPUs[0].Time.V < busy.VCPUs[0].Time.V || !vm.VCPUs[1].Delay.Set || vm.Interfaces[0].Transmit.Packets.V < busy.Interfaces[0].Transmit.Packets.V {
		t.Errorf("from %+v to %+v", busy, vm)
	}
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	must(t, err)
	for key, ours := range map[string]qemu.Num{"rchar": vm.Process.IO.ReadChars, "write_bytes": vm.Process.IO.WriteBytes, "syscw": vm.Process.IO.WriteCalls} {
		if want := valueOf(t, string(io), key); ours != qemu.Some(want) {
			t.Errorf("%s of the stopped process: have %+v, want %d", key, ours, want)
		}
	}
}

// valueOf finds the number that follows a key.
func valueOf(t *testing.T, text, key string) uint64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, key+": "); found {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s in %q", key, text)
	return 0
}
