package qemu

import (
	"encoding/hex"
	"fmt"
)

// maxDevices bounds the virtual CPUs, interfaces and disks of one machine.
const maxDevices = 4096

// maxDomains is REMOTE_DOMAIN_LIST_MAX: libvirt itself sends no more.
const maxDomains = 16384

// maxName bounds names from outside in bytes. Those in Kubernetes have 253 at most.
const maxName = 256

// decode reads the reply to REMOTE_PROC_CONNECT_GET_ALL_DOMAIN_STATS: an
// array of domains, each with its name, UUID, number and parameters. What the
// reading held before serves as memory; after an error it holds nothing of use.
func (r *reading) decode(payload []byte, source string) error {
	r.clear()
	return decodeEach(payload, source, func([16]byte) *reading { return r })
}

// clear empties a reading but for its memory.
func (r *reading) clear() { r.vms, r.refs, r.unused = r.vms[:0], r.refs[:0], 0 }

// decodeEach adds each domain of a reply to the reading that is for its UUID;
// a reply about one that has none is refused.
func decodeEach(payload []byte, source string, reading func(uuid [16]byte) *reading) error {
	w := walker{data: payload}
	var value param
	n := w.u32()
	if n > maxDomains {
		return fmt.Errorf("decode statistics of %d domains: %w", n, errBadReply)
	}
	for ; n > 0 && !w.failed; n-- {
		name := w.bytes()
		var uuid [16]byte
		copy(uuid[:], w.take(16))
		r := reading(uuid)
		if w.failed || r == nil {
			break
		}
		r.vms, r.refs = another(r.vms), another(r.refs)
		vm, ref := &r.vms[len(r.vms)-1], &r.refs[len(r.refs)-1]
		vm.reset()
		vm.Source, vm.Name, vm.UUID = source, intern(vm.Name, name), formatUUID(vm.UUID, uuid)
		ref.name, ref.uuid, ref.number = vm.Name, uuid, w.u32()
		dom := domain{vm: vm, nic: none, disk: none, names: r.names}
		for n := w.u32(); n > 0 && !w.failed; n-- {
			field := w.bytes()
			w.param(&value)
			if !w.failed && !dom.set(field, &value) {
				r.unused++
			}
		}
	}
	if !w.done() {
		return fmt.Errorf("decode domain statistics: %w", errBadReply)
	}
	return nil
}

// reset empties a machine but for the memory of its parts, and for its names,
// which are likely to come again.
func (vm *VM) reset() {
	*vm = VM{
		Name: vm.Name, UUID: vm.UUID,
		Interfaces: vm.Interfaces[:0], Perf: vm.Perf[:0], Bandwidth: vm.Bandwidth[:0], Caches: vm.Caches[:0],
		VCPUs: vm.VCPUs[:0], Blocks: vm.Blocks[:0], BlockTimes: vm.BlockTimes[:0], BlockBins: vm.BlockBins[:0],
		IOThreads: vm.IOThreads[:0], KVM: vm.KVM[:0], VCPUKVM: vm.VCPUKVM[:0],
	}
}

// intern returns b as a string: old, if that is the same.
func intern(old string, b []byte) string {
	if old == string(b) {
		return old
	}
	return string(b)
}

// formatUUID returns the usual form of a UUID: old, if that is the same.
func formatUUID(old string, b [16]byte) string {
	var text [36]byte
	hex.Encode(text[0:], b[:4])
	hex.Encode(text[9:], b[4:6])
	hex.Encode(text[14:], b[6:8])
	hex.Encode(text[19:], b[8:10])
	hex.Encode(text[24:], b[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return intern(old, text[:])
}

// domain is a machine while its parameters come in.
type domain struct {
	vm        *VM
	nic, disk uint32            // numbers of the last interface and disk, or none
	monitored string            // name of the last cache or bandwidth monitor
	names     map[string]string // statistics of KVM that are wanted
}

const none = maxDevices

// set stores one parameter, and reports whether it has a place here.
func (d *domain) set(field []byte, p *param) bool {
	vm := d.vm
	// The groups with most parameters first.
	if rest, found := cut(field, "block."); found {
		return d.setDisk(rest, p)
	}
	if rest, found := cut(field, "vcpu."); found {
		return vm.setVCPU(rest, p, d.names)
	}
	if rest, found := cut(field, "net."); found {
		return d.setInterface(rest, p)
	}
	if rest, found := cut(field, "balloon."); found {
		return vm.Memory.set(rest, p)
	}
	if rest, found := cut(field, "cpu."); found {
		return d.setCPU(rest, p)
	}
	if rest, found := cut(field, "state."); found {
		return vm.setState(rest, p)
	}
	return d.setSeldom(field, p)
}

// setSeldom stores a parameter of the groups that few machines tell.
func (d *domain) setSeldom(field []byte, p *param) bool {
	vm := d.vm
	if rest, found := cut(field, "iothread."); found {
		return vm.setIOThread(rest, p)
	}
	if rest, found := cut(field, "vm."); found {
		return vm.setKVM(rest, p, d.names)
	}
	if rest, found := cut(field, "perf."); found {
		return vm.setPerf(rest, p)
	}
	if rest, found := cut(field, "memory.bandwidth.monitor."); found {
		return d.setBandwidth(rest, p)
	}
	if rest, found := cut(field, "dirtyrate."); found {
		return vm.DirtyRate.set(rest, p)
	}
	return false
}

// cut is bytes.CutPrefix, which does not inline.
func cut(field []byte, prefix string) ([]byte, bool) {
	if len(field) < len(prefix) || string(field[:len(prefix)]) != prefix {
		return nil, false
	}
	return field[len(prefix):], true
}

// store puts a number where it belongs, if anywhere.
func store(place *Num, p *param) bool {
	if place == nil || p.real || !p.num.Set {
		return false
	}
	*place = p.num
	return true
}

// index splits "3.rx.bytes". Libvirt sends the devices of a group in order,
// so the number is either the last one's or a new and larger one.
func index(field []byte) (n uint32, rest []byte, ok bool) {
	for i, c := range field {
		switch {
		case c == '.':
			return n, field[i+1:], i > 0 && n < maxDevices
		case c < '0' || c > '9' || n >= maxDevices:
			return 0, nil, false
		}
		n = 10*n + uint32(c-'0')
	}
	return 0, nil, false
}

// setState stores a value of the state group. The state comes first.
func (vm *VM) setState(field []byte, p *param) bool {
	if !p.num.Set {
		return false
	}
	switch string(field) {
	case "state":
		states := [...]State{StateNone, StateRunning, StateBlocked, StatePaused, StateShutdown, StateShutoff, StateCrashed, StatePMSuspended}
		if p.num.V >= uint64(len(states)) {
			return false
		}
		vm.State = states[p.num.V]
	case "reason":
		reasons := stateReasons[vm.State]
		if p.num.V >= uint64(len(reasons)) {
			return false
		}
		vm.StateReason = reasons[p.num.V]
	default:
		return false
	}
	return true
}

// stateReasons are the reasons of each state, virDomainRunningReason and its
// like, by number.
var stateReasons = map[State][]string{
	StateNone:        {"unknown"},
	StateRunning:     {"unknown", "booted", "migrated", "restored", "from-snapshot", "unpaused", "migration-canceled", "save-canceled", "wakeup", "crashed", "post-copy", "post-copy-failed"},
	StateBlocked:     {"unknown"},
	StatePaused:      {"unknown", "user", "migration", "save", "dump", "io-error", "watchdog", "from-snapshot", "shutting-down", "snapshot", "crashed", "starting-up", "post-copy", "post-copy-failed", "api-error"},
	StateShutdown:    {"unknown", "user"},
	StateShutoff:     {"unknown", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "daemon"},
	StateCrashed:     {"unknown", "panicked"},
	StatePMSuspended: {"unknown"},
}
