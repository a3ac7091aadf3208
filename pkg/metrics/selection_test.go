package metrics

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// encodeSelected returns a page about machines, and what limits cut.
func encodeSelected(selection Selection, protobuf bool, vms ...qemu.VM) (page string, cutVM, cutPage uint64) {
	var w writer
	w.reset(protobuf)
	appendSnapshot(&w, &qemu.Snapshot{VMs: vms}, selection.compile())
	return string(w.buf), w.budget.cutVM, w.budget.cutPage
}

// seriesOf counts the lines of a page that are samples of a machine.
func seriesOf(page, name string) int {
	count := 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") && (strings.Contains(line, `name="`+name+`"`) || strings.Contains(line, `domain="`+name+`"`)) {
			count++
		}
	}
	return count
}

// usualVM is what a machine of a node tells, with an I/O thread.
func usualVM() qemu.VM {
	vm := wholeVM("web", 2, 1, 2)
	vm.StateReason, vm.Agent = "booted", qemu.Some(1)
	vm.Monitor = qemu.Health{Reason: qemu.Ready, LastSuccess: time.Unix(1_700_000_000, 0), Age: qemu.Some(1)}
	vm.IOThreads = []qemu.IOThread{{ID: 1, PollMaximum: qemu.Some(1), PollGrow: qemu.Some(1), PollShrink: qemu.Some(1)}}
	for vcpu := range uint32(2) {
		for _, name := range []string{"exits", "io_exits", "mmio_exits", "halt_exits", "irq_exits"} {
			vm.VCPUKVM = append(vm.VCPUKVM, qemu.KVMStat{VCPU: vcpu, Name: name, Value: qemu.Some(1)})
		}
	}
	for _, name := range []string{"pages_4k", "pages_2m", "pages_1g", "nx_lpage_splits"} {
		vm.KVM = append(vm.KVM, qemu.KVMStat{Name: name, Type: qemu.KVMCurrent, Value: qemu.Some(1)})
	}
	vm.KVM = append(vm.KVM, qemu.KVMStat{Name: "remote_tlb_flush", Value: qemu.Some(1)})
	return vm
}

// seldom are standard families of which a machine tells nothing unless its
// XML, its hardware or the operator asks for more.
var seldom = regexp.MustCompile(`^virtnode_vm_(perf_|memory_bandwidth_|job_|migration_|backup_|vf_|cpu_cache_|` +
	`block_(threshold|latency|queue_depth|requests_by_latency)|(vcpu_)?kvm_(seconds|peak)|vcpu_kvm_value)`)

// TestAMachineHasAtMost150Series is the promise of the standard groups: of a
// machine with 2 virtual CPUs, 2 disks and an interface, every family that a
// host can tell.
func TestAMachineHasAtMost150Series(t *testing.T) {
	page, _, _ := encodeSelected(Selection{}, false, usualVM())
	count := seriesOf(page, "web")
	if count > 150 {
		t.Errorf("%d series", count)
	}
	for _, g := range (Selection{}).groups() {
		for _, f := range g.families {
			if !seldom.MatchString(f.name) && !strings.Contains(page, "# HELP "+f.name+" ") {
				t.Errorf("%s of group %s is not counted", f.name, g.name)
			}
		}
	}
	t.Logf("a machine with 2 vCPUs, 1 NIC and 2 disks has %d series", count)
}

func TestGroupsAreSwitched(t *testing.T) {
	vm := wholeVM("web", 2, 1, 2)
	all, standard := Groups()
	for _, name := range all {
		groups := map[string]bool{}
		for _, other := range all {
			groups[other] = other == name
		}
		page, _, _ := encodeSelected(Selection{Groups: groups}, false, vm)
		for _, g := range vmGroups {
			for _, f := range g.families {
				if strings.Contains(page, "# HELP "+f.name+" ") && g.name != name {
					t.Errorf("with only group %s on, %s is there", name, f.name)
				}
			}
		}
		if reads := (Selection{Groups: groups}).Reads(); !maps.Equal(reads, groups) {
			t.Errorf("with only group %s on, %v are read", name, reads)
		}
		if !slices.Contains(standard, name) {
			continue
		}
		page, _, _ = encodeSelected(Selection{Groups: map[string]bool{name: false}}, false, vm)
		for _, g := range vmGroups {
			if g.name == name && strings.Contains(page, "# HELP "+g.families[0].name+" ") {
				t.Errorf("with group %s off, %s is there", name, g.families[0].name)
			}
		}
	}
	if reads := (Selection{Groups: map[string]bool{"block": false}, Compat: []string{"kubevirt"}}).Reads(); !reads["block"] {
		t.Errorf("KubeVirt's families need what is not read: %v", reads)
	}
}

// TestLimitsCutWholeFamilies holds every limit against the page without one.
func TestLimitsCutWholeFamilies(t *testing.T) {
	vms := []qemu.VM{wholeVM("big", 8, 4, 4), wholeVM("small", 1, 1, 1)}
	selection := Selection{Compat: []string{"libvirt-exporter"}}
	whole, _, _ := encodeSelected(selection, false, vms...)
	total := map[string]int{"big": seriesOf(whole, "big"), "small": seriesOf(whole, "small")}
	for limit := 1; limit < 400; limit += 13 {
		for _, selection.Limits = range []Limits{{PerVM: limit}, {All: limit}, {PerVM: limit, All: 2 * limit}} {
			page, cutVM, cutPage := encodeSelected(selection, false, vms...)
			left := map[string]int{"big": seriesOf(page, "big"), "small": seriesOf(page, "small")}
			if left["big"]+left["small"]+int(cutVM+cutPage) != total["big"]+total["small"] {
				t.Errorf("%+v: %v left and %d+%d cut of %v", selection.Limits, left, cutVM, cutPage, total)
			}
			if selection.Limits.PerVM > 0 && max(left["big"], left["small"]) > limit ||
				selection.Limits.All > 0 && left["big"]+left["small"] > selection.Limits.All {
				t.Errorf("%+v: %v left", selection.Limits, left)
			}
			// What is left is the beginning of each machine's series.
			for name := range total {
				if want := firstLines(whole, name, left[name]); !cmp.Equal(want, firstLines(page, name, left[name])) {
					t.Errorf("%+v: not the first %d series of %s are left", selection.Limits, left[name], name)
				}
			}
			asProtobuf, cutVM2, cutPage2 := encodeSelected(selection, true, vms...)
			families, samples := decode(t, []byte(asProtobuf)), 0
			for _, family := range families {
				if strings.HasPrefix(family.GetName(), "virtnode_vm_") || strings.HasPrefix(family.GetName(), "libvirt_domain_") {
					each := 1
					if family.GetType() == dto.MetricType_HISTOGRAM {
						each = histogramSeries
					}
					samples += each * len(family.Metric)
				}
			}
			if samples != left["big"]+left["small"] || cutVM2 != cutVM || cutPage2 != cutPage {
				t.Errorf("%+v: protobuf has %d samples, %d+%d cut", selection.Limits, samples, cutVM2, cutPage2)
			}
			parse(t, page)
		}
	}
}

func firstLines(page, name string, count int) []string {
	var lines []string
	for line := range strings.Lines(page) {
		if len(lines) < count && !strings.HasPrefix(line, "#") && seriesOf(line, name) == 1 {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestNoHalfHistogramIsLeft cuts one away whole.
func TestNoHalfHistogramIsLeft(t *testing.T) {
	for limit, want := range map[int]int{2 * histogramSeries: 2 * histogramSeries, 2*histogramSeries - 1: histogramSeries, histogramSeries - 1: 0} {
		var w writer
		w.reset(false)
		w.budget.reset(Limits{PerVM: limit}, 1)
		write(&w, testHistograms(), []qemu.Histogram{*histogramOf(0)}, unlabelled[qemu.Histogram])
		if got := strings.Count(string(w.buf), "\nvirtnode_"); got != want {
			t.Errorf("limit %d: %d lines, want %d", limit, got, want)
		}
	}
}

func TestWhatWasCutIsCounted(t *testing.T) {
	s := NewServer(Options{})
	s.SetVMs(&fixed{VMs: []qemu.VM{wholeVM("a", 1, 1, 1), wholeVM("b", 1, 1, 1)}})
	s.Select(Selection{Limits: Limits{PerVM: 10}})
	get(t, s, "/metrics")
	s.Select(Selection{Limits: Limits{All: 11}})
	_, body := get(t, s, "/metrics")
	cut := parse(t, body)["virtnode_scrape_series_cut_total"].Metric
	vm, page := cut[0].GetCounter().GetValue(), cut[1].GetCounter().GetValue()
	if vm == 0 || page != vm+20-10 {
		t.Errorf("cut by limit: vm %v, page %v\n%s", vm, page, body)
	}
	if strings.Count(body, "\nvirtnode_vm_info{") != 2 {
		t.Error("the first family is not there")
	}
}
