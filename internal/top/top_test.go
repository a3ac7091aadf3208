package top

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

var update = flag.Bool("update", false, "write the golden files")

// busy has used n parts of everything.
func busy(namespace, name string, n uint64, at time.Time) qemu.VM {
	some := func(of uint64) qemu.Num { return qemu.Some(n * of) }
	vm := qemu.VM{
		Namespace: namespace, Name: name, UUID: "u-" + name, State: qemu.StateRunning, Current: qemu.Some(2),
		CPU:     qemu.CPU{Time: some(1_000_000_000)},
		VCPUs:   []qemu.VCPU{{Delay: some(100_000_000)}, {Index: 1, Delay: some(50_000_000)}},
		VCPUKVM: []qemu.KVMStat{{Name: "exits", Value: some(1000)}, {VCPU: 1, Name: "exits", Value: some(500)}, {Name: "io_exits", Value: some(7)}},
		Blocks: []qemu.Block{
			{Device: "vda", Read: qemu.IO{Bytes: some(4096), Requests: some(1)}, Write: qemu.IO{Bytes: some(1 << 20), Requests: some(256)}},
			{Device: "vdb", Read: qemu.IO{Bytes: some(4096), Requests: some(1)}, Flush: qemu.IO{Requests: some(2)}},
		},
		Interfaces: []qemu.Interface{{
			Name: "tap0", Receive: qemu.Traffic{Bytes: some(1500), Packets: some(10), Drops: some(1)}, Transmit: qemu.Traffic{Bytes: some(3 << 30), Packets: some(20)},
		}},
		Memory:  qemu.Memory{Resident: qemu.Some(1 << 29)},
		Monitor: qemu.Health{LastSuccess: at},
	}
	vm.Process = &qemu.Process{PID: 1, Start: time.Unix(1, 0), Resident: qemu.Some(1 << 30)}
	vm.Process.Threads[qemu.RoleVCPU].CPU, vm.Process.Threads[qemu.RoleOther].CPU = some(900_000_000), some(100_000_000)
	vm.Process.VCPUs = []qemu.VCPUThread{{Usage: qemu.Usage{Delay: some(100_000_000)}}, {Index: 1, Usage: qemu.Usage{Delay: some(50_000_000)}}}
	return vm
}

func looks() (before, now Look) {
	then := time.Unix(1_700_000_000, 0)
	later := then.Add(2 * time.Second)
	var old, young []qemu.VM
	for i, name := range []string{"calm", "keen", "wild"} {
		old = append(old, busy("prod", name, 1, then))
		young = append(young, busy("prod", name, 1+2*uint64(i), later))
	}
	// One that started anew, one that is off, one with a late answer of
	// libvirt, one without libvirt, and one that nobody saw before.
	old = append(old, busy("", "again", 100, then), qemu.VM{Name: "off", State: qemu.StateShutoff}, busy("", "late", 1, then), busy("", "lost", 1, then))
	again, late, lost := busy("", "again", 3, later), busy("", "late", 9, then), busy("", "lost", 2, later)
	again.Process.Start = time.Unix(2, 0)
	lost = qemu.VM{Name: lost.Name, UUID: lost.UUID, Process: lost.Process}
	young = append(young, again, qemu.VM{Name: "off", State: qemu.StateShutoff}, late, lost, busy("", "new\x1b[2J\u202e", 5, later))
	return Take(&qemu.Snapshot{Time: then, VMs: old}), Take(&qemu.Snapshot{Time: later, VMs: young})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s; run go test ./internal/top -update:\n%s", file, diff)
	}
}

func TestRates(t *testing.T) {
	before, now := looks()
	order, _ := OrderOf('v')
	text, err := json.MarshalIndent(Rows(before, now, order), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "rows.json", string(text)+"\n")
}

func TestRender(t *testing.T) {
	before, now := looks()
	for name, view := range map[string]View{
		"wide.txt":   {},
		"narrow.txt": {Width: 60, Height: 24, Troubles: []string{"qemu:///system: monitor: CallTimeout: 3\x07 domains do not answer"}},
		"short.txt":  {Width: 80, Height: 5},
		"colour.txt": {Width: 100, Height: 24, Colour: true, Troubles: []string{"qemu:///system: light: SocketRefused"}},
	} {
		for _, o := range []string{"cpu", "net"} {
			order, err := ParseOrder(o)
			if err != nil {
				t.Fatal(err)
			}
			view.Order, view.Interval = order, 2*time.Second
			text := Render(Rows(before, now, order), view)
			golden(t, o+"-"+name, text)
			if lines := strings.Count(text, "\n"); view.Height > 0 && lines > view.Height {
				t.Errorf("%s: %d lines in a terminal of %d", name, lines, view.Height)
			}
			if !view.Colour && strings.Contains(text, "\x1b") {
				t.Errorf("%s: a control sequence", name)
			}
		}
	}
}

func TestEveryOrderPutsTheLargestFirst(t *testing.T) {
	before, now := looks()
	for _, o := range orders {
		rows := Rows(before, now, o)
		for i := 1; i < len(rows); i++ {
			if o.value(&rows[i-1]) < o.value(&rows[i]) {
				t.Errorf("by %s: row %d is larger than the one before it", o.Name, i)
			}
		}
		if parsed, err := ParseOrder(o.Name); err != nil || parsed.Key != o.Key {
			t.Errorf("%s: %v", o.Name, err)
		}
	}
	if _, err := ParseOrder("colour"); err == nil || err.Error() != `--sort "colour": want one of cpu, delay, exits, io, net, memory, vm` {
		t.Errorf("error %v", err)
	}
	if _, found := OrderOf('q'); found {
		t.Error("q is to quit")
	}
}

func FuzzRender(f *testing.F) {
	f.Add("web", 80, 24)
	f.Add("\x1b]0;x\a\u202e", 1, 1)
	f.Add("日本\xff", 13, 3)
	f.Fuzz(func(t *testing.T, name string, width, height int) {
		width, height = width%300, height%100
		order, _ := OrderOf('c')
		text := Render([]Row{{Name: name, Namespace: name, State: name}}, View{Width: width, Height: height, Order: order, Troubles: []string{name}})
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if width > 0 && utf8.RuneCountInString(line) > width || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%dx%d: %q", width, height, line)
			}
		}
	})
}

func TestSize(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1.0Ki", 1024: "1.0Ki", 10240: "10Ki", 1 << 30: "1.0Gi", 1 << 62: "4.0Ei"} {
		if got := size(&v); got != want {
			t.Errorf("%v: %s, want %s", fmt.Sprint(v), got, want)
		}
	}
}
