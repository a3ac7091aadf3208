package qemu

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"
)

// sizeable is a running domain with 129 parameters: eight virtual CPUs, four
// disks and two interfaces.
func sizeable(n int) fakeDomain {
	dom := fakeDomain{name: fmt.Sprintf("instance-%08x", n), uuid: [16]byte{13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}, starts: uint32(n) + 1}
	num := func(field string, v uint64) fakeParam { return fakeParam{field, v + uint64(n)} }
	state := []fakeParam{{"state.state", int32(1)}, {"state.reason", int32(1)}}
	cpu := []fakeParam{num("cpu.time", 1e12), num("cpu.user", 1e11), num("cpu.system", 1e10)}
	balloon := []fakeParam{
		num("balloon.current", 1<<22), num("balloon.maximum", 1<<22), num("balloon.swap_in", 0), num("balloon.swap_out", 0), num("balloon.major_fault", 300),
		num("balloon.minor_fault", 30000), num("balloon.unused", 1<<20), num("balloon.available", 1<<22), num("balloon.last-update", 1.7e9), num("balloon.rss", 1<<21),
	}
	vcpu := []fakeParam{{"vcpu.current", uint32(8)}, {"vcpu.maximum", uint32(8)}}
	for i := range 8 {
		p := fmt.Sprintf("vcpu.%d.", i)
		vcpu = append(vcpu, fakeParam{p + "state", int32(1)}, num(p+"time", 1e12), num(p+"wait", 0), fakeParam{p + "halted", true}, num(p+"delay", 1e9))
	}
	net := []fakeParam{{"net.count", uint32(2)}}
	for i := range 2 {
		p := fmt.Sprintf("net.%d.", i)
		net = append(net, fakeParam{p + "name", fmt.Sprintf("vnet%d", 2*n+i)}, num(p+"rx.bytes", 1e9), num(p+"rx.pkts", 1e6), num(p+"rx.errs", 0), num(p+"rx.drop", 0),
			num(p+"tx.bytes", 1e9), num(p+"tx.pkts", 1e6), num(p+"tx.errs", 0), num(p+"tx.drop", 0))
	}
	block := []fakeParam{{"block.count", uint32(4)}}
	for i := range 4 {
		p := fmt.Sprintf("block.%d.", i)
		block = append(block, fakeParam{p + "name", "vd" + string(rune('a'+i))}, fakeParam{p + "path", fmt.Sprintf("/var/lib/libvirt/images/instance-%08x-%d.qcow2", n, i)})
		for _, field := range []string{"rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times", "fl.reqs", "fl.times", "allocation", "capacity", "physical"} {
			block = append(block, num(p+field, 1e9))
		}
	}
	dom.params = map[uint32][]fakeParam{
		uint32(libvirt.DomainStatsState): state, uint32(libvirt.DomainStatsCPUTotal): cpu, uint32(libvirt.DomainStatsBalloon): balloon,
		uint32(libvirt.DomainStatsVCPU): vcpu, uint32(libvirt.DomainStatsInterface): net, uint32(libvirt.DomainStatsBlock): block,
	}
	return dom
}

func sizeables(n int) []fakeDomain {
	domains := make([]fakeDomain, n)
	for i := range domains {
		domains[i] = sizeable(i)
	}
	return domains
}

func TestDecodeAllocatesNothingTheSecondTime(t *testing.T) {
	domains := sizeables(20)
	count := 0
	for _, params := range domains[0].params {
		count += len(params)
	}
	if count != 129 {
		t.Errorf("the domains of the benchmark have %d parameters, want 129", count)
	}
	payload := encodeStats(domains, ^uint32(0))
	var r reading
	if n := testing.AllocsPerRun(10, func() {
		if err := r.decode(payload, system); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// cpuTime is what this process has used: on a machine that others use too,
// it tells more than the time that went by.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func report(b *testing.B, machines int, before time.Duration) {
	b.Helper()
	used := cpuTime(b) - before
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N*machines), "cpu-ns/vm")
}

func BenchmarkDecode(b *testing.B) {
	for _, machines := range []int{10, 50, 200, 500, 1000, 2000} {
		b.Run(fmt.Sprintf("vms=%d", machines), func(b *testing.B) {
			payload := encodeStats(sizeables(machines), ^uint32(0))
			var r reading
			if err := r.decode(payload, system); err != nil { // makes the memory
				b.Fatal(err)
			}
			b.ReportAllocs()
			used := cpuTime(b)
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				if err := r.decode(payload, system); err != nil {
					b.Fatal(err)
				}
			}
			report(b, machines, used)
		})
	}
}

// replay serves domains from packets made before, without an allocation.
func replay(t testing.TB, h *fakeHost, domains []fakeDomain) {
	t.Helper()
	packet := func(domains []fakeDomain, groups uint32) []byte {
		return append(make([]byte, headerSize), encodeStats(domains, groups)...)
	}
	light := packet(domains, lightGroups)
	monitor := make(map[[16]byte][]byte)
	for _, dom := range domains {
		monitor[dom.uuid] = packet([]fakeDomain{dom}, monitorGroups)
	}
	name := filepath.Join(h.dir, "/run/libvirt/libvirt-sock")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	hello := append(make([]byte, headerSize), 0, 0, 0, 1, 0, 0, 0, authNone)
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { replayTo(conn, hello, light, monitor) })
		}
	})
}

// replayTo answers one connection. Each has packets of its own, as headers
// are written into them.
func replayTo(conn net.Conn, hello, light []byte, monitor map[[16]byte][]byte) {
	defer func() { _ = conn.Close() }()
	request, reply := make([]byte, 4096), make([]byte, 0, len(light))
	for {
		n, err := conn.Read(request)
		if err != nil || n < headerSize {
			return
		}
		from := hello[:headerSize]
		switch args := request[headerSize:n]; binary.BigEndian.Uint32(request[12:]) {
		case procAuthList:
			from = hello
		case procDomainStats:
			if from = light; binary.BigEndian.Uint32(args) > 0 {
				reply = replayEach(reply[:0], args, monitor)
				from = reply
			}
		}
		reply = append(reply[:0], from...)
		copy(reply, request[:headerSize])
		binary.BigEndian.PutUint32(reply, uint32(len(reply)))
		binary.BigEndian.PutUint32(reply[16:], typeReply)
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// replayEach puts the replies about the domains that are named into one.
func replayEach(reply, args []byte, monitor map[[16]byte][]byte) []byte {
	w := walker{data: args}
	n := w.u32()
	reply = append(reply, make([]byte, headerSize+4)...)
	binary.BigEndian.PutUint32(reply[headerSize:], n)
	for range n {
		w.bytes()
		reply = append(reply, monitor[[16]byte(w.take(16))][headerSize+4:]...)
		w.u32()
	}
	return reply
}

// allReady fails a test unless all machines are told of, by QEMU as well.
func allReady(t testing.TB, s *Snapshot, machines int) {
	t.Helper()
	if len(s.VMs) != machines {
		t.Errorf("%d machines, want %d", len(s.VMs), machines)
	}
	for i := range s.VMs {
		if vm := &s.VMs[i]; vm.Monitor.Reason != Ready || len(vm.Blocks) == 0 {
			t.Fatalf("%s: %+v, %d disks", vm.Name, vm.Monitor, len(vm.Blocks))
		}
	}
}

// TestACollectionAllocatesNothingForAMachine counts the allocations of whole
// collections that differ in the number of machines only.
func TestACollectionAllocatesNothingForAMachine(t *testing.T) {
	allocations := func(machines int) float64 {
		h := newHost(t)
		replay(t, h, sizeables(machines))
		now := newClock()
		c := run(t, Options{Root: h.root, Budget: time.Minute, CallTimeout: time.Minute, Now: now.Now})
		for range 3 { // a connection's memory grows with its first replies
			now.advance(30 * time.Second)
			c.Collect(t.Context()).Release()
		}
		return testing.AllocsPerRun(20, func() {
			now.advance(30 * time.Second)
			s := c.Collect(t.Context())
			allReady(t, s, machines)
			s.Release()
		})
	}
	few, many := allocations(10), allocations(300)
	t.Logf("%.0f allocations for 10 machines, %.0f for 300", few, many)
	if many-few > 20 {
		t.Errorf("%.0f allocations for 10 machines, but %.0f for 300", few, many)
	}
}

// BenchmarkCollect is a whole collection over replayed replies: a daemon that
// answers from memory, over sockets, and no process. The daemon's reads and
// writes are in the time.
func BenchmarkCollect(b *testing.B) {
	for _, machines := range []int{10, 50, 200, 500, 1000, 2000} {
		b.Run(fmt.Sprintf("vms=%d", machines), func(b *testing.B) {
			h := newHost(b)
			replay(b, h, sizeables(machines))
			now := newClock()
			c := run(b, Options{Root: h.root, Budget: time.Minute, CallTimeout: time.Minute, Now: now.Now})
			c.Collect(context.Background()).Release()
			b.ReportAllocs()
			used := cpuTime(b)
			for b.Loop() {
				now.advance(30 * time.Second) // or QEMU would not be asked
				s := c.Collect(context.Background())
				allReady(b, s, machines)
				s.Release()
			}
			report(b, machines, used)
		})
	}
}

func BenchmarkMerge(b *testing.B) {
	for _, machines := range []int{10, 200, 2000} {
		b.Run(fmt.Sprintf("vms=%d", machines), func(b *testing.B) {
			var light reading
			if err := light.decode(encodeStats(sizeables(machines), ^uint32(0)), system); err != nil {
				b.Fatal(err)
			}
			monitor := &monitor{guests: make(map[[16]byte]*guest), maxAge: time.Minute}
			for i, ref := range light.refs {
				monitor.guests[ref.uuid] = &guest{last: reading{vms: light.vms[i : i+1]}}
			}
			from := &daemonSources{monitor: monitor, control: &control{}}
			m := newMerger()
			m.addDaemon(&light, from, pod{}, time.Time{})
			vms := m.appendTo(nil) // makes the memory
			m.reset()
			b.ReportAllocs()
			used := cpuTime(b)
			for b.Loop() {
				m.addDaemon(&light, from, pod{}, time.Time{})
				vms = m.appendTo(vms[:0])
				m.reset()
			}
			report(b, machines, used)
		})
	}
}
