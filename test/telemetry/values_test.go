package telemetry

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// TestPageTellsWhatVirshTells holds every series that has a counterpart in
// virsh domstats against it, of machines in all states.
func TestPageTellsWhatVirshTells(t *testing.T) {
	f := newFleet(t, libvirt.Options{},
		libvirt.Domain{Name: "chatty", Workload: libvirt.DiskAndNet, VCPUs: 2, Disks: []libvirt.Disk{{}, {Format: "raw"}}, NICs: []libvirt.NIC{{}, {}, {Model: "e1000"}}, IOThreads: 1, CDROM: true},
		libvirt.Domain{Name: "busy", Workload: libvirt.Busy, VCPUs: 2},
		libvirt.Domain{Name: "paused", Workload: libvirt.DiskAndNet, NICs: []libvirt.NIC{{}}},
		libvirt.Domain{Name: "crashed", OnCrash: "preserve", Panic: true},
		libvirt.Domain{Name: "off"},
	)
	must(t, f.Suspend(t.Context(), "paused"))
	must(t, f.Destroy(t.Context(), "off"))
	crash(t, f.Host, "crashed")
	for _, event := range []string{"cpu_clock", "task_clock", "page_faults", "context_switches", "cpu_migrations"} {
		_, err := f.Virsh(t.Context(), "perf", "chatty", "--enable", event, "--live")
		must(t, err)
	}
	agent := startAgent(t, "", f.URI())

	for domain, want := range map[string]struct {
		state    string
		running  bool
		compared int // at least
	}{
		"chatty":  {"running", true, 65},
		"busy":    {"running", true, 20},
		"paused":  {"paused", true, 25},
		"crashed": {"crashed", true, 15},
		"off":     {"shutoff", false, 1},
	} {
		t.Run(domain, func(t *testing.T) {
			uuid := f.uuids[domain]
			before, page, after := between(t, f, agent, domain)
			if state, known := page.Value("virtnode_vm_state", "uuid", uuid, "state", want.state); !known || state != 1 {
				t.Errorf("state: %+v", page.Select("virtnode_vm_state", "uuid", uuid))
			}
			if _, known := page.Value("virtnode_vm_process_resident_memory_bytes", "uuid", uuid); known != want.running {
				t.Errorf("a process is known: %v", known)
			}
			compared := 0
			for field := range before {
				if compareField(t, page, uuid, field, before, after) {
					compared++
				}
			}
			if compared < want.compared {
				t.Errorf("only %d values compared: %v", compared, before)
			}
		})
	}
	t.Run("taps", func(t *testing.T) { compareTaps(t, f, agent, "chatty") })
	t.Run("processes", func(t *testing.T) {
		for _, domain := range []string{"chatty", "busy", "paused"} {
			compareProcess(t, f, agent, domain)
		}
	})
}

// crash makes a guest panic, as its own kernel would: QEMU's pvpanic device
// tells libvirt, which keeps the crashed machine.
func crash(t *testing.T, host *libvirt.Host, domain string) {
	t.Helper()
	_, err := host.Virsh(t.Context(), "qemu-monitor-command", domain, "--hmp", "o /b 0x505 0x1")
	must(t, err)
	eventually(t, "a crashed machine", func() error {
		state, err := host.State(t.Context(), domain)
		if err == nil && state != "crashed" {
			err = fmt.Errorf("it is %s", state)
		}
		return err
	})
}

// between scrapes between two looks of virsh, until every source was read in
// between.
func between(t *testing.T, f *fleet, agent *exporter.Process, domain string) (before map[string]string, page *exporter.Page, after map[string]string) {
	t.Helper()
	groups := []string{"state", "cpu-total", "balloon", "vcpu", "interface", "block", "vm", "perf"}
	before, err := f.Stats(t.Context(), domain, groups...)
	must(t, err)
	start := time.Now()
	eventually(t, "a page made since then", func() error {
		asked := time.Now()
		page = scrape(t, agent)
		for _, age := range page.Select("virtnode_source_age_seconds") {
			read := slices.Contains([]string{kernel, light, monitor}, age.Labels["class"])
			if read && age.Value > asked.Sub(start).Seconds() {
				return fmt.Errorf("%s is %v", age.Key(), age.Value)
			}
		}
		if len(page.Select("virtnode_source_up")) < 3 {
			return fmt.Errorf("sources: %+v", page.Select("virtnode_source_up"))
		}
		return nil
	})
	after, err = f.Stats(t.Context(), domain, groups...)
	must(t, err)
	return before, page, after
}

// tick is what the kernel cuts CPU times to, in /proc. What is added up from
// user and system, as libvirt does, lacks up to two of what ours has.
const tick = 0.01

// compareField holds our series against a field of virsh's: between what virsh
// told before and after, less a tick or more what was cut. It reports whether there is one.
func compareField(t *testing.T, page *exporter.Page, uuid, field string, before, after map[string]string) bool {
	t.Helper()
	family, labels, scale, known := counterpart(field, before)
	if !known {
		return false
	}
	low, err1 := strconv.ParseFloat(before[field], 64)
	high, err2 := strconv.ParseFloat(after[field], 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("virsh shows %s=%q, %q", field, before[field], after[field])
	}
	low, high = min(low, high)*scale, max(low, high)*scale
	ours, told := page.Value(family, append(labels, "uuid", uuid)...)
	if field == "balloon.last-update" && high == 0 {
		told = !told // virsh's 0 is no time; ours must not be there
	}
	late, cut := 0.0, 0.0
	switch {
	case strings.HasSuffix(family, "seconds_total"):
		late, cut = tick, 2*tick
	case field == "balloon.rss": // goes up and down by itself
		late, cut = 1<<20, 1<<20
	}
	if !told || ours < low-late || ours > high+cut {
		t.Errorf("%s: %s is %v (told: %v), want %v to %v", field, family, ours, told, low, high)
	}
	return true
}

// kvmCounted is a statistic of KVM's own, and what kind it is.
var kvmCounted = regexp.MustCompile(`^(vm|vcpu)\.(\w+)\.(sum|cur|max)$`)

var numbered = regexp.MustCompile(`^(vcpu|net|block)\.(\d+)\.(.+)$`)

// counterpart is our series for a field of virsh's, and what virsh's value
// must be multiplied with.
func counterpart(field string, all map[string]string) (family string, labels []string, scale float64, known bool) {
	const kib, ns = 1024, 1e-9
	type series struct {
		family string
		scale  float64
	}
	plain := map[string]series{
		"cpu.time": {"cpu_seconds_total", ns}, "cpu.user": {"cpu_user_seconds_total", ns}, "cpu.system": {"cpu_system_seconds_total", ns},
		"cpu.haltpoll.success.time": {"cpu_haltpoll_success_seconds_total", ns}, "cpu.haltpoll.fail.time": {"cpu_haltpoll_failure_seconds_total", ns},
		"balloon.current": {"memory_current_bytes", kib}, "balloon.maximum": {"memory_maximum_bytes", kib}, "balloon.rss": {"memory_resident_bytes", kib},
		"balloon.last-update": {"memory_last_update_timestamp_seconds", 1}, "balloon.available": {"memory_available_bytes", kib},
		"balloon.usable": {"memory_usable_bytes", kib}, "balloon.unused": {"memory_unused_bytes", kib},
		"balloon.swap_in": {"memory_swap_in_bytes_total", kib}, "balloon.major_fault": {"memory_major_faults_total", 1},
		"vcpu.current": {"vcpus", 1}, "vcpu.maximum": {"vcpus_maximum", 1},
		"vcpu.time": {"vcpu_seconds_total", ns}, "vcpu.wait": {"vcpu_wait_seconds_total", ns}, "vcpu.delay": {"vcpu_delay_seconds_total", ns},
		"net.rx.bytes": {"network_receive_bytes_total", 1}, "net.rx.pkts": {"network_receive_packets_total", 1},
		"net.rx.errs": {"network_receive_errors_total", 1}, "net.rx.drop": {"network_receive_drops_total", 1},
		"net.tx.bytes": {"network_transmit_bytes_total", 1}, "net.tx.pkts": {"network_transmit_packets_total", 1},
		"net.tx.errs": {"network_transmit_errors_total", 1}, "net.tx.drop": {"network_transmit_drops_total", 1},
		"block.rd.reqs": {"block_read_requests_total", 1}, "block.rd.bytes": {"block_read_bytes_total", 1}, "block.rd.times": {"block_read_seconds_total", ns},
		"block.wr.reqs": {"block_write_requests_total", 1}, "block.wr.bytes": {"block_write_bytes_total", 1}, "block.wr.times": {"block_write_seconds_total", ns},
		"block.fl.reqs": {"block_flush_requests_total", 1}, "block.fl.times": {"block_flush_seconds_total", ns},
		"block.allocation": {"block_allocation_bytes", 1}, "block.capacity": {"block_capacity_bytes", 1}, "block.physical": {"block_physical_bytes", 1},
	}
	if parts := numbered.FindStringSubmatch(field); parts != nil {
		field = parts[1] + "." + parts[3]
		switch prefix := parts[1] + "." + parts[2]; parts[1] {
		case "vcpu":
			labels = []string{"vcpu", parts[2]}
		case "net":
			labels = []string{"interface", all[prefix+".name"]}
		case "block":
			labels = []string{"device", all[prefix+".name"]}
		}
	}
	if parts := kvmCounted.FindStringSubmatch(field); parts != nil {
		of, stat := parts[1], parts[2]
		family, scale := map[string]string{"sum": "events_total", "cur": "value", "max": "peak"}[parts[3]], 1.0
		if name, isTime := strings.CutSuffix(stat, "_ns"); isTime && parts[3] == "sum" {
			family, stat, scale = "seconds_total", name, ns
		}
		return "virtnode_" + map[string]string{"vm": "vm", "vcpu": "vm_vcpu"}[of] + "_kvm_" + family, append(labels, "stat", stat), scale, slices.Contains(kvmStats, parts[2])
	}
	if event, found := strings.CutPrefix(field, "perf."); found {
		if clock, isTime := strings.CutSuffix(event, "_clock"); isTime {
			return "virtnode_vm_perf_seconds_total", []string{"clock", clock}, ns, true
		}
		return "virtnode_vm_perf_events_total", []string{"event", event}, 1, true
	}
	found, known := plain[field]
	return "virtnode_vm_" + found.family, labels, found.scale, known
}

// compareTaps holds the network series against the kernel's own counters of
// the taps, in the bed's network. What a tap receives, the guest has sent.
func compareTaps(t *testing.T, f *fleet, agent *exporter.Process, domain string) {
	t.Helper()
	stats, err := f.Stats(t.Context(), domain, "interface")
	must(t, err)
	count, err := strconv.Atoi(stats["net.count"])
	must(t, err)
	for i := range count {
		tap := stats[fmt.Sprintf("net.%d.name", i)]
		before := linkCounters(t, f.Host, tap)
		_, page, _ := between(t, f, agent, domain)
		after := linkCounters(t, f.Host, tap)
		for ours, theirs := range map[string]string{
			"receive_bytes": "tx.bytes", "receive_packets": "tx.packets", "receive_errors": "tx.errors", "receive_drops": "tx.dropped",
			"transmit_bytes": "rx.bytes", "transmit_packets": "rx.packets", "transmit_errors": "rx.errors", "transmit_drops": "rx.dropped",
		} {
			got, known := page.Value("virtnode_vm_network_"+ours+"_total", "uuid", f.uuids[domain], "interface", tap)
			if !known || got < before[theirs] || got > after[theirs] {
				t.Errorf("%s of %s: %v (known: %v), want %v to %v", ours, tap, got, known, before[theirs], after[theirs])
			}
		}
	}
}

// linkCounters reads ip -s link: a header that names columns, and a line of values.
func linkCounters(t *testing.T, host *libvirt.Host, tap string) map[string]float64 {
	t.Helper()
	out, err := host.Command(t.Context(), "ip", "-s", "link", "show", "dev", tap).Output()
	must(t, err)
	counters := make(map[string]float64)
	lines := strings.Split(string(out), "\n")
	for i, line := range lines[:len(lines)-1] {
		names := strings.Fields(line)
		if len(names) == 0 || names[0] != "RX:" && names[0] != "TX:" {
			continue
		}
		direction := strings.ToLower(strings.TrimSuffix(names[0], ":"))
		for j, value := range strings.Fields(lines[i+1]) {
			if j+1 < len(names) {
				counters[direction+"."+names[j+1]], err = strconv.ParseFloat(value, 64)
				must(t, err)
			}
		}
	}
	if len(counters) < 8 {
		t.Fatalf("ip -s link was not understood:\n%s", out)
	}
	return counters
}

// compareProcess holds the kernel class against /proc, as it was before the page
// and after.
func compareProcess(t *testing.T, f *fleet, agent *exporter.Process, domain string) {
	t.Helper()
	pid, err := f.QEMUPID(domain)
	must(t, err)
	before := procNumbers(t, pid)
	_, page, _ := between(t, f, agent, domain)
	after := procNumbers(t, pid)
	const tells = "virtnode_vm_process_"
	const all, vcpuSeconds, pages = "threads", "virtnode_vm_vcpu_seconds_total", 1 << 20
	// What may be missing, and what the kernel has cut. Each role is rounded by itself.
	slack := map[string][2]float64{
		all: {5 * tick, 5 * tick}, vcpuSeconds: {tick, 0}, tells + "resident_memory_bytes": {pages, pages},
	}
	vcpus := 0
	for name, low := range before {
		high, still := after[name]
		if !still {
			t.Fatalf("%s: %s is not in /proc any more", domain, name)
		}
		labels := []string{"uuid", f.uuids[domain]}
		family, label, labelled := strings.Cut(name, " ")
		switch {
		case labelled:
			vcpus++
			labels = append(labels, "vcpu", label)
		case name != all && !strings.HasPrefix(name, tells):
			labels = append(labels, "kind", name)
			family = tells + "memory_bytes"
		}
		var ours float64
		known := true
		if name == all {
			for _, role := range page.Select("virtnode_vm_thread_cpu_seconds_total", "uuid", f.uuids[domain]) {
				ours += role.Value
			}
		} else {
			ours, known = page.Value(family, labels...)
		}
		allowed := slack[family]
		if family == tells+"memory_bytes" {
			allowed = slack[tells+"resident_memory_bytes"]
		}
		if !known || ours < min(low, high)-allowed[0] || ours > max(low, high)+allowed[1] {
			t.Errorf("%s: %s is %v (known: %v), want %v to %v", domain, name, ours, known, low, high)
		}
	}
	if vcpus < 2 {
		t.Errorf("%s: no thread of a virtual CPU was compared: %v", domain, before)
	}
}

var (
	vcpuThread = regexp.MustCompile(`^CPU (\d+)/`)
	numberLine = regexp.MustCompile(`(?m)^(\w+):\s+(\d+)( kB)?$`)
)

// procNumbers are numbers of a QEMU in /proc: by our family's name, that and a
// virtual CPU's number, or the kind of memory.
func procNumbers(t *testing.T, pid int) map[string]float64 {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		must(t, err)
		return string(text)
	}
	number := func(text string) float64 {
		n, err := strconv.ParseFloat(text, 64)
		must(t, err)
		return n
	}
	text := read("stat")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	numbers := map[string]float64{
		"threads":                                (number(fields[11]) + number(fields[12])) * tick,
		"virtnode_vm_process_minor_faults_total": number(fields[7]), "virtnode_vm_process_major_faults_total": number(fields[9]),
	}
	for _, line := range numberLine.FindAllStringSubmatch(read("status")+read("io"), -1) {
		name, known := map[string]string{
			"VmRSS": "virtnode_vm_process_resident_memory_bytes", "RssAnon": "anonymous", "RssFile": "file",
			"read_bytes": "virtnode_vm_process_read_bytes_total", "write_bytes": "virtnode_vm_process_write_bytes_total",
		}[line[1]]
		switch {
		case known && line[3] != "":
			numbers[name] = number(line[2]) * 1024
		case known:
			numbers[name] = number(line[2])
		}
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	must(t, err)
	for _, thread := range threads {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/comm", pid, thread.Name()))
		if vcpu := vcpuThread.FindSubmatch(comm); err == nil && vcpu != nil {
			times := strings.Fields(read("task/" + thread.Name() + "/schedstat"))
			numbers["virtnode_vm_vcpu_seconds_total "+string(vcpu[1])] = number(times[0]) / 1e9
			numbers["virtnode_vm_vcpu_delay_seconds_total "+string(vcpu[1])] = number(times[1]) / 1e9
		}
	}
	return numbers
}
