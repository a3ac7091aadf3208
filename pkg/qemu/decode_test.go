package qemu

import (
	"errors"
	"net"
	"testing"

	"github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// decodeStats decodes a reply into new memory.
func decodeStats(payload []byte) (reading, error) {
	r := reading{names: internTable(standardKVMStats[:])}
	err := r.decode(payload, "")
	return r, err
}

// decodeOne decodes one domain with the given parameters.
func decodeOne(t *testing.T, params ...fakeParam) (VM, int) {
	t.Helper()
	id, _ := uuidOf(1)
	r, err := decodeStats(encodeStats([]fakeDomain{{name: "a", uuid: id, params: map[uint32][]fakeParam{1: params}}}, 1))
	if err != nil {
		t.Fatal(err)
	}
	return r.vms[0], r.unused
}

func TestDecodeNeverTakesAMissingValueForZero(t *testing.T) {
	vm, _ := decodeOne(t)
	if diff := cmp.Diff(VM{}, vm, cmpopts.IgnoreFields(VM{}, "Name", "UUID")); diff != "" {
		t.Error(diff)
	}
	vm, unused := decodeOne(t, fakeParam{"balloon.current", int64(-1)}, fakeParam{"balloon.rss", "12"}, fakeParam{"cpu.time", 1.5})
	if vm.Memory != (Memory{}) || vm.CPU != (CPU{}) || unused != 3 {
		t.Errorf("have %+v, %+v and %d unused; want none, none and 3", vm.Memory, vm.CPU, unused)
	}
}

func TestDecodeStates(t *testing.T) {
	for number, want := range map[int32]State{0: StateNone, 1: StateRunning, 3: StatePaused, 5: StateShutoff, 6: StateCrashed, 7: StatePMSuspended, 8: "", -1: ""} {
		if vm, _ := decodeOne(t, fakeParam{"state.state", number}); vm.State != want {
			t.Errorf("%d: %q, want %q", number, vm.State, want)
		}
	}
}

func TestDecodeRefusesDevicesThatCannotBeToldApart(t *testing.T) {
	vm, unused := decodeOne(t,
		fakeParam{"net.0.name", "tap0"}, fakeParam{"net.0.rx.bytes", uint64(1)},
		fakeParam{"net.1.name", "tap0"}, fakeParam{"net.1.rx.bytes", uint64(2)},
		fakeParam{"net.2.name", ""}, fakeParam{"net.2.rx.bytes", uint64(3)},
		fakeParam{"net.0.rx.bytes", uint64(4)}, fakeParam{"net.0.name", "tap1"},
		fakeParam{"net.99999999999.name", "tap2"}, fakeParam{"net.4096.name", "tap3"},
		fakeParam{"block.0.rd.reqs", uint64(1)}, fakeParam{"block.0.name", "vda"}, fakeParam{"block.1.name", "vda"},
		fakeParam{"vcpu.5.time", uint64(1)}, fakeParam{"vcpu.4.time", uint64(1)}, fakeParam{"vcpu.x.time", uint64(1)}, fakeParam{"vcpu", uint64(1)})
	want := VM{Interfaces: []Interface{{Name: "tap0", Receive: Traffic{Bytes: Some(4)}}}, Blocks: []Block{{Device: "vda"}}, VCPUs: []VCPU{{Index: 5, Time: Some(1)}}}
	if diff := cmp.Diff(want, vm, cmpopts.IgnoreFields(VM{}, "Name", "UUID")); diff != "" {
		t.Error(diff)
	}
	if unused != 12 {
		t.Errorf("%d fields unused, want 12", unused)
	}
}

// TestGoLibvirtReadsTheFakeAsWeDo keeps the fake honest, and the decoder.
func TestGoLibvirtReadsTheFakeAsWeDo(t *testing.T) {
	h := newHost(t)
	d := startDaemon(t, h.dir, "/sock")
	d.domains = []fakeDomain{domainNamed("web", 2), domainNamed("db", 1)}
	client := libvirt.NewWithDialer(dialer(d.path))
	if err := client.Connect(); err != nil {
		t.Fatal(err)
	}
	records, err := client.ConnectGetAllDomainStats(nil, lightGroups|monitorGroups, uint32(libvirt.ConnectGetAllDomainsStatsNowait))
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeStats(encodeStats(d.domains, lightGroups|monitorGroups))
	if err != nil || len(records) != len(r.vms) {
		t.Fatalf("have %d machines (%v), want %d", len(r.vms), err, len(records))
	}
	for i, record := range records {
		if record.Dom.Name != r.vms[i].Name || formatUUID("", record.Dom.UUID) != r.vms[i].UUID {
			t.Errorf("have %s %s, want %s %x", r.vms[i].Name, r.vms[i].UUID, record.Dom.Name, record.Dom.UUID)
		}
		again := domain{vm: new(VM), nic: none, disk: none, names: r.names}
		for _, p := range record.Params {
			value := paramOf(p.Value)
			again.set([]byte(p.Field), &value)
		}
		if diff := cmp.Diff(*again.vm, r.vms[i], cmpopts.IgnoreFields(VM{}, "Name", "UUID")); diff != "" {
			t.Errorf("%s (-go-libvirt +ours):\n%s", record.Dom.Name, diff)
		}
	}
}

type dialer string

func (d dialer) Dial() (net.Conn, error) { return net.Dial("unix", string(d)) }

// paramOf converts go-libvirt's idea of a parameter.
func paramOf(value libvirt.TypedParamValue) param {
	switch v := value.I.(type) {
	case int32:
		return param{num: Num{V: uint64(v), Set: v >= 0}}
	case uint32:
		return param{num: Some(uint64(v))}
	case int64:
		return param{num: Num{V: uint64(v), Set: v >= 0}}
	case uint64:
		return param{num: Some(v)}
	case float64:
		return param{num: Some(uint64(v * 1e9)), real: true}
	case string:
		return param{str: []byte(v)}
	}
	return param{}
}

func FuzzDecodeStats(f *testing.F) {
	f.Add(encodeStats([]fakeDomain{domainNamed("web", 2), domainNamed("db", 1)}, ^uint32(0)))
	f.Add(encodeStats(nil, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeStats(data)
		if err != nil {
			return
		}
		for _, vm := range r.vms {
			checkDistinct(t, "interface", vm.Interfaces, func(nic Interface) any { return nic.Name })
			checkDistinct(t, "disk", vm.Blocks, func(disk Block) any { return disk.Device })
			checkDistinct(t, "interval", vm.BlockTimes, func(b BlockTime) any { return [2]any{b.Device, b.Interval} })
			checkDistinct(t, "bin", vm.BlockBins, func(b BlockBin) any { return [3]any{b.Device, b.Operation, b.Start} })
			checkDistinct(t, "I/O thread", vm.IOThreads, func(th IOThread) any { return th.ID })
			checkDistinct(t, "statistic", vm.KVM, func(s KVMStat) any { return [2]any{s.Name, s.Type} })
			checkDistinct(t, "virtual CPU's statistic", vm.VCPUKVM, func(s KVMStat) any { return [3]any{s.VCPU, s.Name, s.Type} })
			checkDistinct(t, "counter", vm.Perf, func(p Perf) any { return p.Name })
			checkDistinct(t, "node", vm.Bandwidth, func(b Bandwidth) any { return [2]any{b.Monitor, b.Node} })
			checkDistinct(t, "bank", vm.Caches, func(c Cache) any { return [2]any{c.Monitor, c.Bank} })
			for i := 1; i < len(vm.VCPUs); i++ {
				if vm.VCPUs[i].Index <= vm.VCPUs[i-1].Index {
					t.Error("virtual CPUs are out of order")
				}
			}
		}
		// The memory of a reading must not show in the next.
		var again reading
		if err := errors.Join(r.decode(data, ""), again.decode(data, "")); err != nil {
			t.Fatal(err)
		}
		again.names = r.names
		if err := again.decode(data, ""); err != nil || !cmp.Equal(r.vms, again.vms, cmpopts.EquateEmpty()) {
			t.Errorf("decoded again: %v\n%s", err, cmp.Diff(r.vms, again.vms, cmpopts.EquateEmpty()))
		}
	})
}

// checkDistinct makes sure that no two things would have the same labels.
func checkDistinct[T any](t *testing.T, what string, things []T, key func(T) any) {
	t.Helper()
	seen := make(map[any]bool)
	for _, thing := range things {
		k := key(thing)
		if what == "interface" && k == "" {
			t.Error("an interface without a name")
		}
		if seen[k] {
			t.Errorf("two of %s %v", what, k)
		}
		seen[k] = true
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(make([]byte, headerSize), []byte{0, 0, 0, 38, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 1, 'x', 0, 0, 0})
	f.Fuzz(func(t *testing.T, head, payload []byte) {
		if len(head) != headerSize {
			return
		}
		if size, _, err := parseHeader([headerSize]byte(head), procDomainStats, 1, maxReply); err == nil && size > maxReply {
			t.Errorf("a payload of %d bytes", size)
		}
		if parseError(payload) == nil {
			t.Error("an error that is none")
		}
	})
}
