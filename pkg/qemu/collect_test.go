package qemu

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/digitalocean/go-libvirt"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	lightGroups   = uint32(libvirt.DomainStatsState | libvirt.DomainStatsInterface | libvirt.DomainStatsPerf | libvirt.DomainStatsMemory)
	monitorGroups = uint32(libvirt.DomainStatsCPUTotal | libvirt.DomainStatsBalloon | libvirt.DomainStatsVCPU | libvirt.DomainStatsBlock | libvirt.DomainStatsIothread | libvirt.DomainStatsVm)
)

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_700_001_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// run starts a collector and ends it with the test.
func run(t testing.TB, opt Options) *Collector {
	t.Helper()
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- c.Run(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// patient is a collector's options with times that no test waits for.
func patient(h *fakeHost, now *clock) Options {
	return Options{Root: h.root, Budget: time.Hour, CallTimeout: time.Hour, MaxAge: time.Minute, Now: now.Now}
}

func uuidOf(n byte) ([16]byte, string) {
	return [16]byte{15: n}, "00000000-0000-0000-0000-0000000000" + strconv.FormatUint(uint64(n)+0x100, 16)[1:]
}

// domainNamed is a running domain with every group.
func domainNamed(name string, n byte) fakeDomain {
	id, _ := uuidOf(n)
	return fakeDomain{name: name, uuid: id, params: map[uint32][]fakeParam{
		uint32(libvirt.DomainStatsState): {{"state.state", int32(1)}, {"state.reason", int32(5)}},
		uint32(libvirt.DomainStatsCPUTotal): {
			{"cpu.time", uint64(12_345_678_901)},
			{"cpu.user", uint64(2)},
			{"cpu.system", uint64(3)},
			{"cpu.cache.monitor.count", uint32(1)},
			{"cpu.cache.monitor.0.name", "vcpus_0-3"},
			{"cpu.cache.monitor.0.vcpus", "0-3"},
			{"cpu.cache.monitor.0.bank.count", uint32(2)},
			{"cpu.cache.monitor.0.bank.0.id", uint32(0)},
			{"cpu.cache.monitor.0.bank.0.bytes", uint32(21)},
			{"cpu.cache.monitor.0.bank.1.id", uint32(4)},
			{"cpu.cache.monitor.0.bank.1.bytes", uint32(22)},
		},
		uint32(libvirt.DomainStatsBalloon): {{"balloon.current", uint64(32768)}, {"balloon.maximum", uint64(65536)}, {"balloon.last-update", uint64(0)}, {"balloon.rss", uint64(1024)}},
		uint32(libvirt.DomainStatsVCPU): {
			{"vcpu.current", uint32(1)},
			{"vcpu.maximum", uint32(4)},
			{"vcpu.0.state", int32(1)},
			{"vcpu.0.time", uint64(7)},
			{"vcpu.0.wait", uint64(0)},
			{"vcpu.0.halted", false},
			{"vcpu.3.delay", uint64(9)},
			{"vcpu.3.halt_exits.sum", uint64(1)},
			{"vcpu.3.guest_mode.cur", false},
			{"vcpu.3.frobnicated", uint64(1)},
		},
		uint32(libvirt.DomainStatsInterface): {{"net.count", uint32(1)}, {"net.0.name", "tap0"}, {"net.0.rx.bytes", uint64(10)}, {"net.0.tx.drop", uint64(11)}},
		uint32(libvirt.DomainStatsBlock): {
			{"block.count", uint32(1)},
			{"block.0.name", "vda"},
			{"block.0.path", "/a.img"},
			{"block.0.rd.reqs", uint64(1)},
			{"block.0.fl.times", uint64(5)},
			{"block.0.capacity", uint64(512)},
			{"block.0.wr.reqs", int64(-1)},
			{"block.0.threshold", uint64(400)},
			{"block.0.timed_group.count", uint64(1)},
			{"block.0.timed_group.0.interval", uint64(60)},
			{"block.0.timed_group.0.rd_latency_min", uint64(31)},
			{"block.0.timed_group.0.wr_latency_max", uint64(32)},
			{"block.0.timed_group.0.flush_latency_avg", uint64(33)},
			{"block.0.timed_group.0.rd_queue_depth_avg", 0.25},
			{"block.0.latency_histogram.read.bin.count", uint64(2)},
			{"block.0.latency_histogram.read.bin.0.start", uint64(0)},
			{"block.0.latency_histogram.read.bin.0.value", uint64(41)},
			{"block.0.latency_histogram.read.bin.1.start", uint64(1000)},
			{"block.0.latency_histogram.read.bin.1.value", uint64(42)},
			{"block.0.latency_histogram.flush.bin.count", uint64(1)},
			{"block.0.latency_histogram.flush.bin.0.start", uint64(0)},
			{"block.0.latency_histogram.flush.bin.0.value", uint64(43)},
		},
		uint32(libvirt.DomainStatsPerf):     {{"perf.instructions", uint64(51)}, {"perf.cpu_clock", uint64(52)}},
		uint32(libvirt.DomainStatsIothread): {{"iothread.count", uint32(1)}, {"iothread.2.poll-max-ns", uint64(32768)}, {"iothread.2.poll-grow", uint32(0)}, {"iothread.2.poll-shrink", uint32(4)}},
		uint32(libvirt.DomainStatsMemory): {
			{"memory.bandwidth.monitor.count", uint32(1)},
			{"memory.bandwidth.monitor.0.name", "vcpus_0"},
			{"memory.bandwidth.monitor.0.vcpus", "0"},
			{"memory.bandwidth.monitor.0.node.count", uint32(1)},
			{"memory.bandwidth.monitor.0.node.0.id", uint32(1)},
			{"memory.bandwidth.monitor.0.node.0.bytes.total", uint64(62)},
			{"memory.bandwidth.monitor.0.node.0.bytes.local", uint64(61)},
		},
		uint32(libvirt.DomainStatsDirtyrate): {{"dirtyrate.calc_status", int32(2)}, {"dirtyrate.calc_start_time", int64(9)}, {"dirtyrate.calc_period", int32(1)}, {"dirtyrate.megabytes_per_second", int64(3)}, {"dirtyrate.calc_mode", "page-sampling"}},
		uint32(libvirt.DomainStatsVm):        {{"vm.pages_4k.cur", uint64(71)}, {"vm.remote_tlb_flush.sum", uint64(72)}, {"vm.max_mmu_rmap_size.max", uint64(73)}},
	}}
}

// vmNamed is what domainNamed becomes.
func vmNamed(name string, n byte, source string, at time.Time) VM {
	_, uuid := uuidOf(n)
	vm := VM{
		Name: name, UUID: uuid, Source: source, Domain: name, Kind: KindLibvirt, State: StateRunning, StateReason: "unpaused", Monitor: Health{Reason: Ready, LastSuccess: at, Age: Some(0)},
		CPU:     CPU{Time: Some(12_345_678_901), User: Some(2), System: Some(3)},
		Caches:  []Cache{{Monitor: "vcpus_0-3", Bytes: Some(21)}, {Monitor: "vcpus_0-3", Bank: 4, Bytes: Some(22)}},
		Current: Some(1), Maximum: Some(4),
		VCPUs:      []VCPU{{State: VCPURunning, Time: Some(7), Wait: Some(0), Halted: Some(0)}, {Index: 3, Delay: Some(9)}},
		VCPUKVM:    []KVMStat{{VCPU: 3, Name: "halt_exits", Value: Some(1)}},
		Memory:     Memory{Current: Some(32 << 20), Maximum: Some(64 << 20), LastUpdate: Num{}, Resident: Some(1 << 20)},
		Interfaces: []Interface{{Name: "tap0"}},
		Blocks:     []Block{{Device: "vda", Capacity: Some(512), Threshold: Some(400)}},
		BlockTimes: []BlockTime{{Device: "vda", Interval: 60, ReadDepth: Some(250_000_000)}},
		BlockBins:  []BlockBin{{"vda", "read", 0, Some(41)}, {"vda", "read", 1000, Some(42)}, {"vda", "flush", 0, Some(43)}},
		Perf:       []Perf{{"instructions", Some(51)}, {"cpu_clock", Some(52)}},
		IOThreads:  []IOThread{{ID: 2, PollMaximum: Some(32768), PollGrow: Some(0), PollShrink: Some(4)}},
		Bandwidth:  []Bandwidth{{Monitor: "vcpus_0", Node: 1, Local: Some(61), Total: Some(62)}},
		KVM:        []KVMStat{{Name: "pages_4k", Type: KVMCurrent, Value: Some(71)}, {Name: "remote_tlb_flush", Value: Some(72)}},
	}
	vm.Interfaces[0].Receive.Bytes, vm.Interfaces[0].Transmit.Drops = Some(10), Some(11)
	vm.Blocks[0].Read.Requests, vm.Blocks[0].Flush.Time = Some(1), Some(5)
	vm.BlockTimes[0].Read.Minimum, vm.BlockTimes[0].Write.Maximum, vm.BlockTimes[0].Flush.Average = Some(31), Some(32), Some(33)
	return vm
}

func stateOf(s *Snapshot, source string, class Class) SourceState {
	for _, state := range s.Sources {
		if state.Source == source && state.Class == class {
			return state
		}
	}
	return SourceState{}
}

const system = "qemu:///system"

func TestCollectTellsEveryValueOfADomainAndItsProcess(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock-ro")
	d.domains = []fakeDomain{domainNamed("web", 2), domainNamed("db", 1)}
	_, uuid := uuidOf(2)
	h.process(100, 250, "/usr/bin/qemu-system-x86_64\x00-name\x00guest=web,debug-threads=on\x00-uuid\x00"+uuid+"\x00", 100, thread{"CPU 0/KVM", 50}, thread{"IO iothread1", 4}, thread{"worker", 30})
	h.process(200, 300, "qemu-system-x86_64\x00-name\x00lonely\x00", 20)

	c := run(t, patient(h, now))
	got := c.Collect(t.Context())

	web, db := vmNamed("web", 2, system, now.Now()), vmNamed("db", 1, system, now.Now())
	// Both count the CPU time and what is resident: the kernel's numbers are served.
	web.VCPUs[0].Time = Some(500_000_000)
	web.CPU.Time, web.CPU.User, web.CPU.System = Some(1_000_000_000), Some(750_000_000), Some(250_000_000)
	web.Memory.Resident = Some(45 << 20)
	web.Process = &Process{
		PID: 100, Start: time.Unix(1_700_000_002, 5e8), Resident: Some(45 << 20), MinorFaults: Some(100), MajorFaults: Some(5),
		Threads:   [len(Roles)]Usage{RoleOther: spent(39, 11), RoleEmulator: spent(7, 1), RoleVCPU: spent(50, 12), RoleIOThread: spent(4, 1)},
		VCPUs:     []VCPUThread{{0, spent(50, 12)}},
		IOThreads: []NamedThread{{"iothread1", spent(4, 1)}},
	}
	lonely := VM{Name: "lonely", Domain: "lonely", Kind: KindQEMU, Source: SourceProc, CPU: CPU{Time: Some(200_000_000), User: Some(150_000_000), System: Some(50_000_000)}, Memory: Memory{Resident: Some(45 << 20)}, Process: &Process{
		PID: 200, Start: time.Unix(1_700_000_003, 0), Resident: Some(45 << 20), MinorFaults: Some(100), MajorFaults: Some(5),
		Threads: [len(Roles)]Usage{RoleOther: spent(13, 4), RoleEmulator: spent(7, 1)},
	}}
	if diff := cmp.Diff([]VM{db, lonely, web}, got.VMs, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
	want := []SourceState{
		{Source: SourceProc, Class: Kernel, Reason: Ready, LastSuccess: now.Now()},
		{Source: system, Class: Light, Reason: Ready, LastSuccess: now.Now()},
		{Source: system, Class: Monitor, Reason: Ready, LastSuccess: now.Now(), Unused: 4},
		{Source: system, Class: Control, Reason: Ready, LastSuccess: now.Now()},
	}
	if diff := cmp.Diff(want, got.Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	for _, flags := range d.opens {
		if flags != uint32(libvirt.ConnectRo) {
			t.Errorf("a connection was opened with flags %d, want read-only", flags)
		}
	}
}

func TestAHangingDaemonDelaysNobody(t *testing.T) {
	for name, mode := range map[string]mode{"after accept": hangOpen, "in the call": hang, "in the reply": hangMid} {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			h, now := newHost(t), newClock()
			bad := startDaemon(t, h.dir, "/bad")
			good := startDaemon(t, h.dir, "/good")
			bad.mode = mode
			good.domains = []fakeDomain{domainNamed("web", 1)}
			h.process(200, 300, "qemu-system-x86_64\x00-name\x00lonely\x00", 20)
			opt := patient(h, now)
			opt.Budget = 10 * time.Millisecond
			opt.URIs = []string{"qemu+unix:///system?socket=/bad", "qemu+unix:///system?socket=/good"}
			c := run(t, opt)
			eventually(t, "the good daemon and /proc are complete", func() bool {
				s := c.Collect(t.Context())
				return len(s.VMs) == 2 && cmp.Equal(s.VMs[1], vmNamed("web", 1, opt.URIs[1], now.Now())) && s.VMs[0].Name == "lonely" &&
					stateOf(s, opt.URIs[0], Light).Reason == Pending && stateOf(s, opt.URIs[1], Monitor).Up()
			})
			if n := bad.count(lightGroups) + bad.count(monitorGroups); n > 1 {
				t.Errorf("%d calls wait in the hanging daemon, want one at most", n)
			}
		})
	}
}

func TestADaemonDiesAndComesBack(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/virtqemud-sock")
	d.domains = []fakeDomain{domainNamed("web", 1)}
	_, uuid := uuidOf(1)
	h.process(100, 250, "qemu-kvm\x00-uuid\x00"+uuid+"\x00-name\x00guest=web\x00", 100)
	c := run(t, patient(h, now))

	if s := c.Collect(t.Context()); len(s.VMs) != 1 || s.VMs[0].Source != system || s.VMs[0].Process == nil {
		t.Fatalf("with the daemon: %+v", s.VMs)
	}
	d.stop()
	s := c.Collect(t.Context())
	if len(s.VMs) != 1 || s.VMs[0].Source != SourceProc || s.VMs[0].Name != "web" || s.VMs[0].UUID != uuid {
		t.Errorf("without the daemon, want the process under the same name: %+v", s.VMs)
	}
	for _, class := range []Class{Light, Monitor} {
		if state := stateOf(s, system, class); state.Reason != SocketMissing {
			t.Errorf("without the daemon, class %s is %s: %s", class, state.Reason, state.Message)
		}
	}
	d.start()
	s = c.Collect(t.Context())
	if len(s.VMs) != 1 || s.VMs[0].Source != system || s.VMs[0].Process == nil || !s.VMs[0].CPU.Time.Set {
		t.Errorf("with the daemon again: %+v", s.VMs)
	}
}

// TestAMachineKeepsItsNameWithoutItsDaemon, also one that only its XML knows.
func TestAMachineKeepsItsNameWithoutItsDaemon(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/virtqemud-sock")
	d.domains = []fakeDomain{domainNamed("instance-00000001", 1)}
	d.control.xml = map[string]string{"instance-00000001": novaText}
	_, uuid := uuidOf(1)
	h.process(100, 250, "qemu-kvm\x00-uuid\x00"+uuid+"\x00-name\x00guest=instance-00000001\x00", 100)
	c := run(t, patient(h, now))
	var before VM
	eventually(t, "the machine has its name", func() bool {
		before = c.Collect(t.Context()).VMs[0]
		return before.Kind == KindOpenStack && before.Process != nil
	})
	d.stop()
	for range 3 {
		vms := c.Collect(t.Context()).VMs
		if len(vms) != 1 || vms[0].Source != SourceProc || vms[0].Name != before.Name || vms[0].Namespace != before.Namespace || vms[0].Kind != KindOpenStack {
			t.Errorf("have %+v, want %s/%s", vms, before.Namespace, before.Name)
		}
	}
	h.process(100, 251, "qemu-kvm\x00-uuid\x00"+uuid+"\x00-name\x00guest=instance-00000001\x00", 100)
	if vms := c.Collect(t.Context()).VMs; len(vms) != 1 || vms[0].Name != "instance-00000001" || vms[0].Namespace != "" {
		t.Errorf("another process under its number: %+v", vms)
	}
}

// TestAReadingThatHangsInTheKernel is told of, keeps no counter's place, and does
// not keep the collector from its end.
func TestAReadingThatHangsInTheKernel(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.domains = []fakeDomain{domainNamed("web", 1)}
	h.write("/nodeagent-capture.json", `{"version": 1, "faults": {"read /proc/stat": "HANG"}}`)
	var err error
	if h.root, err = hostfs.Open(h.dir); err != nil {
		t.Fatal(err)
	}
	opt := patient(h, now)
	opt.Budget, opt.CallTimeout = 10*time.Millisecond, 500*time.Millisecond
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- c.Run(ctx, func() { close(ready) }) }()
	<-ready
	eventually(t, "libvirt tells all the same", func() bool {
		s := c.Collect(t.Context())
		return len(s.VMs) == 1 && s.VMs[0].Memory.Current.Set
	})
	if s := c.Collect(t.Context()); s.VMs[0].CPU.Time.Set || stateOf(s, SourceProc, Kernel).Reason != Pending {
		t.Errorf("%+v", s)
	}
	now.advance(time.Second)
	if s := c.Collect(t.Context()); s.VMs[0].CPU.Time.Set || stateOf(s, SourceProc, Kernel).Reason != CallTimeout {
		t.Errorf("after its time: %+v", s)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := h.root.Close(); err != nil { // which lets go of what hangs
		t.Fatal(err)
	}
}

func TestADaemonRestartedBetweenScrapesCostsNoScrape(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	c := run(t, patient(h, now))
	for range 3 {
		s := c.Collect(t.Context())
		if !stateOf(s, system, Light).Up() || !stateOf(s, system, Monitor).Up() {
			t.Fatalf("%+v", s.Sources)
		}
		d.stop()
		d.start()
	}
}

func TestAMisbehavingDaemonIsSaidToBe(t *testing.T) {
	cases := map[string]struct {
		mode mode
		want Reason
	}{
		"closes instead of answering":     {closeConn, ConnectionLost},
		"closes in the reply":             {closeMid, ConnectionLost},
		"answers something else":          {garbage, BadReply},
		"announces two GiB":               {hugeLength, BadReply},
		"announces less than a header":    {shortLength, BadReply},
		"answers another call":            {wrongSerial, BadReply},
		"sends what nobody asked for":     {event, BadReply},
		"sends no statistics":             {nonsense, BadReply},
		"refuses the call":                {refuse, CallRefused},
		"wants another authentication":    {needSASL, AuthRequired},
		"behaves, to prove the fake does": {answer, Ready},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			h, now := newHost(t), newClock()
			d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
			d.mode = tc.mode
			d.domains = []fakeDomain{domainNamed("web", 1)}
			c := run(t, patient(h, now))
			state := stateOf(c.Collect(t.Context()), system, Light)
			if state.Reason != tc.want || state.Up() != (state.Message == "") {
				t.Fatalf("%s: %s, want %s", state.Reason, state.Message, tc.want)
			}
			d.set(func(d *fakeDaemon) { d.mode = answer })
			if state := stateOf(c.Collect(t.Context()), system, Light); !state.Up() {
				t.Errorf("after it behaves again: %+v", state)
			}
		})
	}
}

func TestWhatHungRests(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.domains = []fakeDomain{domainNamed("web", 1)}
	opt := patient(h, now)
	opt.CallTimeout = 300 * time.Millisecond // what the fake makes it wait; other calls need less
	c := run(t, opt)
	eventually(t, "a first reading", func() bool { return stateOf(c.Collect(t.Context()), system, Monitor).Up() })

	d.set(func(d *fakeDaemon) { d.mode = hang })
	s := c.Collect(t.Context())
	if light, monitor := stateOf(s, system, Light), stateOf(s, system, Monitor); light.Reason != CallTimeout || light.Abandoned != 1 || monitor.Reason != CallTimeout {
		t.Fatalf("%+v, %+v", light, monitor)
	}
	if len(s.VMs) != 1 || !s.VMs[0].CPU.Time.Set {
		t.Errorf("what was read before the hang is served while young: %+v", s.VMs)
	}
	c.Collect(t.Context()) // no rest after the first timeout
	calls := d.count(lightGroups)
	for range 3 {
		c.Collect(t.Context())
	}
	if again := d.count(lightGroups); again != calls {
		t.Errorf("%d calls during the rest", again-calls)
	}
	now.advance(2 * time.Minute)
	s = c.Collect(t.Context())
	if again := d.count(lightGroups); again != calls+1 {
		t.Errorf("%d calls after the rest, want 1", again-calls)
	}
	if len(s.VMs) != 0 {
		t.Errorf("what was read two minutes ago is still served: %+v", s.VMs)
	}
	d.set(func(d *fakeDaemon) { d.mode = answer })
	eventually(t, "the daemon is up again", func() bool {
		now.advance(2 * time.Minute)
		return stateOf(c.Collect(t.Context()), system, Monitor).Up()
	})
}

func TestCollectionsAtTheSameTimeAreOne(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.mode = hang
	c := run(t, patient(h, now))
	var callers sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for range 20 {
		callers.Go(func() {
			if s := c.Collect(ctx); len(s.Sources) != 4 {
				t.Errorf("at its deadline, a caller gets %+v", s.Sources)
			}
		})
	}
	callers.Wait()
	eventually(t, "the call arrives", func() bool { return d.count(lightGroups) == 1 })
	if n := d.count(monitorGroups); n > 0 {
		t.Errorf("%d machines were asked for before any was listed", n)
	}
}

func TestALateReadingIsNotWaitedForAgain(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.mode = hang
	c := run(t, patient(h, now))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c.Collect(ctx)
	now.advance(time.Hour)
	// This one has an hour to wait, and would.
	if s := c.Collect(t.Context()); stateOf(s, system, Light).Reason != Pending {
		t.Errorf("%+v", s.Sources)
	}
}

func TestACancelledCallerLeavesAtOnce(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	d.mode = hang
	c := run(t, patient(h, now))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s := c.Collect(ctx); len(s.VMs) != 0 || len(s.Sources) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCollectWithoutRunTellsNothing(t *testing.T) {
	h := newHost(t)
	c, err := New(Options{Root: h.root})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Collect(t.Context()); len(s.VMs)+len(s.Sources) != 0 {
		t.Errorf("before Run: %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx, func() {}); err != nil {
		t.Error(err)
	}
	if s := c.Collect(t.Context()); len(s.VMs)+len(s.Sources) != 0 {
		t.Errorf("after Run: %+v", s)
	}
	if err := c.Run(ctx, func() {}); err == nil {
		t.Error("a second Run is not refused")
	}
}

func TestASessionSocketMustBeItsUsers(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	own := strconv.Itoa(os.Getuid())
	startDaemon(t, h.dir, "/run/user/"+own+"/libvirt/libvirt-sock")
	startDaemon(t, h.dir, "/run/user/64999/libvirt/virtqemud-sock")
	c := run(t, patient(h, now))
	s := c.Collect(t.Context())
	if state := stateOf(s, "qemu:///session?uid="+own, Light); !state.Up() {
		t.Errorf("own session: %+v", state)
	}
	if state := stateOf(s, "qemu:///session?uid=64999", Light); state.Reason != PermissionDenied {
		t.Errorf("a session served by somebody else: %+v", state)
	}
	h.remove("/run/user/64999")
	if s := c.Collect(t.Context()); stateOf(s, "qemu:///session?uid=64999", Light).Reason != "" {
		t.Error("a session that has gone is still a source")
	}
}
