package libvirt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/test/libvirt"
	"github.com/virtnode/nodeagent/test/prometheus"
)

// maxAge is shorter than the agent's own, so that every machine is asked anew
// every few seconds, however still it stands.
const maxAge = 6 * time.Second

// collector runs the agent's collector on this machine's /proc and on the
// bed's libvirtd.
func collector(t *testing.T, host *libvirt.Host, opt qemu.Options) *qemu.Collector {
	t.Helper()
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	opt.Root, opt.URIs = root, []string{host.URI()}
	if opt.MaxAge == 0 {
		opt.MaxAge = maxAge
	}
	c, err := qemu.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- c.Run(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run the collector: %v", err)
		}
	})
	return c
}

// uuids are the UUIDs of the bed's domains: this machine may have others.
func uuids(t *testing.T, host *libvirt.Host, domains ...string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for _, domain := range domains {
		out, err := host.Virsh(t.Context(), "domuuid", domain)
		if err != nil {
			t.Fatal(err)
		}
		found[domain] = strings.TrimSpace(out)
	}
	return found
}

// vmOf returns a machine of a snapshot; the zero VM when it is not there.
func vmOf(s *qemu.Snapshot, uuid string) qemu.VM {
	if i := slices.IndexFunc(s.VMs, func(vm qemu.VM) bool { return vm.UUID == uuid }); i >= 0 {
		return s.VMs[i]
	}
	return qemu.VM{}
}

func health(s *qemu.Snapshot, class qemu.Class) qemu.SourceState {
	i := slices.IndexFunc(s.Sources, func(state qemu.SourceState) bool { return state.Class == class })
	if i < 0 {
		return qemu.SourceState{}
	}
	return s.Sources[i]
}

// eventually waits for a condition, or ends the test with what stands in its way.
func eventually(t *testing.T, what string, met func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := met()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s never happened: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fresh collects until all numbers were read since it began.
func fresh(t *testing.T, c *qemu.Collector) *qemu.Snapshot {
	t.Helper()
	var s *qemu.Snapshot
	start := time.Now()
	eventually(t, "a reading of libvirt", func() error {
		s = c.Collect(t.Context())
		for _, class := range []qemu.Class{qemu.Kernel, qemu.Light, qemu.Monitor} {
			if state := health(s, class); !state.Up() || state.LastSuccess.Before(start) {
				return fmt.Errorf("%s: %+v", class, state)
			}
		}
		return nil
	})
	return s
}

func start(t *testing.T, host *libvirt.Host, domains ...libvirt.Domain) {
	t.Helper()
	if err := host.StartDomains(t.Context(), domains...); err != nil {
		t.Fatal(err)
	}
}

// must ends the test on an error of the bed.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAgentTellsWhatVirshTells(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host,
		libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, VCPUs: 2, Disks: []libvirt.Disk{{}, {Format: "raw"}}, NICs: []libvirt.NIC{{}, {}}, IOThreads: 1, CDROM: true},
		libvirt.Domain{Name: "busy", Workload: libvirt.Busy, VCPUs: 2},
		libvirt.Domain{Name: "paused", NICs: []libvirt.NIC{{}}},
	)
	must(t, host.Suspend(t.Context(), "paused"))
	must(t, host.Define(t.Context(), libvirt.Domain{Name: "off"}))
	states := map[string]qemu.State{"chatty": qemu.StateRunning, "busy": qemu.StateRunning, "paused": qemu.StatePaused, "off": qemu.StateShutoff}
	id := uuids(t, host, "chatty", "busy", "paused", "off")
	groups := []string{"state", "cpu-total", "balloon", "vcpu", "interface", "block", "iothread", "vm", "perf", "memory"}

	c := collector(t, host, qemu.Options{})
	for domain, state := range states {
		before, err := host.Stats(t.Context(), domain, groups...)
		must(t, err)
		var vm qemu.VM
		eventually(t, domain+" is not busy", func() error {
			if vm = vmOf(fresh(t, c), id[domain]); vm.Monitor.Reason == qemu.Busy {
				return fmt.Errorf("%+v", vm.Monitor)
			}
			return nil
		})
		after, err := host.Stats(t.Context(), domain, groups...)
		must(t, err)
		if vm.Monitor.Reason != qemu.Ready || vm.StateReason == "" || before["state.reason"] != strconv.Itoa(reasonNumber(vm.StateReason)) {
			t.Errorf("%s: monitor class %+v, state reason %q, want number %s", domain, vm.Monitor, vm.StateReason, before["state.reason"])
		}
		if vm.Name != domain || vm.State != state || vm.Source != host.URI() {
			t.Errorf("%s: have %q from %s, state %q; want state %q", domain, vm.Name, vm.Source, vm.State, state)
		}
		if running := state != qemu.StateShutoff; (vm.Process != nil) != running {
			t.Errorf("%s: process %+v", domain, vm.Process)
		} else if running {
			checkProcess(t, host, domain, vm)
		}
		if compared := compareStats(t, domain, vm, before, after); domain == "chatty" && compared < 60 {
			t.Errorf("only %d values of %s compared", compared, domain)
		}
	}
}

// checkProcess compares the kernel class with the bed's PID and libvirt's CPU time.
func checkProcess(t *testing.T, host *libvirt.Host, domain string, vm qemu.VM) {
	t.Helper()
	pid, err := host.QEMUPID(domain)
	must(t, err)
	var sum uint64
	for _, used := range vm.Process.Threads {
		sum += used.CPU.V
	}
	// Both are read within a scrape: a second covers that.
	seconds, want := float64(sum)/1e9, float64(vm.CPU.Time.V)/1e9
	if vm.Process.PID != pid || seconds < want-1 || seconds > want+1 {
		t.Errorf("%s: PID %d with %.2f s of CPU time, want %d with %.2f s", domain, vm.Process.PID, seconds, pid, want)
	}
	if !vm.Process.Threads[qemu.RoleVCPU].CPU.Set || vm.Process.Resident.V < 10<<20 || vm.Process.Start.After(time.Now()) || time.Since(vm.Process.Start) > time.Hour {
		t.Errorf("%s: process %+v", domain, vm.Process)
	}
}

// compareStats holds every value that virsh shows against ours: equal if it
// did not change, in between if it did. It returns how many it compared.
func compareStats(t *testing.T, domain string, vm qemu.VM, before, after map[string]string) int {
	t.Helper()
	compared := 0
	for field, first := range before {
		ours, scale, known := lookup(&vm, field)
		if !known {
			continue
		}
		low, high := number(t, first)*scale, number(t, after[field])*scale
		compared++
		if field == "balloon.last-update" && high == 0 {
			ours.Set = !ours.Set // virsh's 0 is no time; ours must not be there
		}
		if !ours.Set || ours.V < min(low, high) || ours.V > max(low, high) {
			t.Errorf("%s: %s is %+v, want %d to %d", domain, field, ours, low, high)
		}
	}
	// A value that virsh does not show must not be there.
	if _, shown := before["balloon.current"]; shown != vm.Memory.Current.Set {
		t.Errorf("%s: balloon %+v, but virsh shows one: %v", domain, vm.Memory, shown)
	}
	return compared
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	switch text {
	case "yes":
		return 1
	case "no":
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("virsh shows %q: %v", text, err)
	}
	return n
}

// reasonNumber is libvirt's number of the reasons that these domains can have.
func reasonNumber(reason string) int {
	return map[string]int{"unknown": 0, "booted": 1, "user": 1}[reason]
}

var numbered = regexp.MustCompile(`^(vcpu|net|block|iothread)\.(\d+)\.(.+)$`)

// lookup finds our value for one of virsh's fields, and what virsh's must be
// multiplied with.
func lookup(vm *qemu.VM, field string) (qemu.Num, uint64, bool) {
	const kib = 1024
	plain := map[string]struct {
		value qemu.Num
		scale uint64
	}{
		"cpu.time": {vm.CPU.Time, 1}, "cpu.user": {vm.CPU.User, 1}, "cpu.system": {vm.CPU.System, 1},
		"balloon.current": {vm.Memory.Current, kib}, "balloon.maximum": {vm.Memory.Maximum, kib}, "balloon.rss": {vm.Memory.Resident, kib},
		"balloon.last-update": {vm.Memory.LastUpdate, 1}, "balloon.available": {vm.Memory.Available, kib}, "balloon.usable": {vm.Memory.Usable, kib},
		"balloon.unused": {vm.Memory.Unused, kib}, "balloon.swap_in": {vm.Memory.SwapIn, kib}, "balloon.major_fault": {vm.Memory.MajorFaults, 1},
		"vcpu.current": {vm.Current, 1}, "vcpu.maximum": {vm.Maximum, 1},
		"net.count": {qemu.Some(uint64(len(vm.Interfaces))), 1}, "block.count": {qemu.Some(uint64(len(vm.Blocks))), 1},
		"iothread.count": {qemu.Some(uint64(len(vm.IOThreads))), 1},
	}
	if found, ok := plain[field]; ok {
		return found.value, found.scale, true
	}
	parts := numbered.FindStringSubmatch(field)
	if parts == nil {
		return qemu.Num{}, 0, false
	}
	n, _ := strconv.Atoi(parts[2])
	values := map[string]qemu.Num{}
	switch {
	case parts[1] == "vcpu" && n < len(vm.VCPUs):
		cpu := vm.VCPUs[n]
		values = map[string]qemu.Num{"time": cpu.Time, "wait": cpu.Wait, "delay": cpu.Delay, "halted": cpu.Halted}
	case parts[1] == "net" && n < len(vm.Interfaces):
		rx, tx := vm.Interfaces[n].Receive, vm.Interfaces[n].Transmit
		values = map[string]qemu.Num{
			"rx.bytes": rx.Bytes, "rx.pkts": rx.Packets, "rx.errs": rx.Errors, "rx.drop": rx.Drops,
			"tx.bytes": tx.Bytes, "tx.pkts": tx.Packets, "tx.errs": tx.Errors, "tx.drop": tx.Drops,
		}
	case parts[1] == "iothread":
		for _, thread := range vm.IOThreads {
			if int(thread.ID) == n {
				values = map[string]qemu.Num{"poll-max-ns": thread.PollMaximum, "poll-grow": thread.PollGrow, "poll-shrink": thread.PollShrink}
			}
		}
	case parts[1] == "block" && n < len(vm.Blocks):
		disk := vm.Blocks[n]
		values = map[string]qemu.Num{
			"rd.reqs": disk.Read.Requests, "rd.bytes": disk.Read.Bytes, "rd.times": disk.Read.Time,
			"wr.reqs": disk.Write.Requests, "wr.bytes": disk.Write.Bytes, "wr.times": disk.Write.Time,
			"fl.reqs": disk.Flush.Requests, "fl.times": disk.Flush.Time,
			"allocation": disk.Allocation, "capacity": disk.Capacity, "physical": disk.Physical,
		}
	}
	value, known := values[parts[3]]
	return value, 1, known
}

func TestPrometheusScrapesTheAgent(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "busy", Workload: libvirt.Busy, NICs: []libvirt.NIC{{}}})
	uuid := uuids(t, host, "busy")["busy"]
	c := collector(t, host, qemu.Options{})
	server := metrics.NewServer(metrics.Options{
		Version: "test",
		Tasks:   func() []metrics.TaskState { return []metrics.TaskState{{Name: "telemetry", State: metrics.TaskReady}} },
		Config:  func() metrics.ConfigState { return metrics.ConfigState{Successful: true, LastSuccess: time.Now()} },
	})
	server.SetVMs(c)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	address := listener.Addr().String()

	fresh(t, c)
	response, err := http.Get("http://" + address + "/metrics")
	must(t, err)
	page, err := io.ReadAll(response.Body)
	must(t, err)
	must(t, response.Body.Close())
	if err := prometheus.CheckMetrics(t.Context(), page); err != nil {
		t.Errorf("promtool: %v", err)
	}

	prom := prometheus.New(t, address)
	samples, err := prom.Wait(t.Context(), fmt.Sprintf(`increase(virtnode_vm_cpu_seconds_total{uuid=%q}[20s]) > 0.1`, uuid))
	must(t, err)
	if len(samples) != 1 || samples[0].Labels["name"] != "busy" {
		t.Errorf("CPU time of the machine: %+v", samples)
	}
	for _, expression := range []string{
		`up == 1`,
		fmt.Sprintf(`virtnode_vm_state{uuid=%q,state="running"} == 1`, uuid),
		fmt.Sprintf(`virtnode_vm_network_receive_bytes_total{uuid=%q}`, uuid),
		fmt.Sprintf(`virtnode_vm_thread_cpu_seconds_total{uuid=%q,role="vcpu"} > 0`, uuid),
		`virtnode_source_up{class="monitor"} == 1`,
		`virtnode_task_up{task="telemetry"} == 1`,
	} {
		if found, err := prom.Query(t.Context(), expression); err != nil || len(found) != 1 {
			t.Errorf("%s: %+v, %v", expression, found, err)
		}
	}
}
