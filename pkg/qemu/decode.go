package qemu

import (
	"encoding/hex"
	"fmt"
	"slices"
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
	w := walker{data: payload}
	var value param
	r.vms, r.refs, r.unused = r.vms[:0], r.refs[:0], 0
	n := w.u32()
	if n > maxDomains {
		return fmt.Errorf("decode statistics of %d domains: %w", n, errBadReply)
	}
	for ; n > 0 && !w.failed; n-- {
		r.vms, r.refs = another(r.vms), another(r.refs)
		vm, ref := &r.vms[len(r.vms)-1], &r.refs[len(r.refs)-1]
		vm.reset()
		vm.Source = source
		vm.Name = intern(vm.Name, w.bytes())
		copy(ref.uuid[:], w.take(16))
		vm.UUID = formatUUID(vm.UUID, ref.uuid)
		ref.name, ref.number = vm.Name, w.u32()
		dom := domain{vm: vm, nic: none, disk: none}
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
	*vm = VM{Name: vm.Name, UUID: vm.UUID, Interfaces: vm.Interfaces[:0], VCPUs: vm.VCPUs[:0], Blocks: vm.Blocks[:0]}
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
	nic, disk uint32 // numbers of the last interface and disk, or none
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
		return vm.setVCPU(rest, p)
	}
	if rest, found := cut(field, "net."); found {
		return d.setInterface(rest, p)
	}
	if rest, found := cut(field, "balloon."); found {
		return vm.Memory.set(rest, p)
	}
	if rest, found := cut(field, "cpu."); found {
		return store(vm.CPU.field(rest), p)
	}
	if rest, found := cut(field, "state."); found {
		return vm.setState(rest, p)
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
	if place == nil || !p.num.Set {
		return false
	}
	*place = p.num
	return true
}

func (vm *VM) setState(field []byte, p *param) bool {
	states := [...]State{StateNone, StateRunning, StateBlocked, StatePaused, StateShutdown, StateShutoff, StateCrashed, StatePMSuspended}
	if string(field) != "state" || !p.num.Set || p.num.V >= uint64(len(states)) {
		return false
	}
	vm.State = states[p.num.V]
	return true
}

func (c *CPU) field(name []byte) *Num {
	switch string(name) {
	case "time":
		return &c.Time
	case "user":
		return &c.User
	case "system":
		return &c.System
	case "haltpoll.success.time":
		return &c.HaltPollSuccess
	case "haltpoll.fail.time":
		return &c.HaltPollFailure
	}
	return nil
}

// set stores a value of the balloon group, whose sizes are in KiB.
func (m *Memory) set(name []byte, p *param) bool {
	place := m.size(name)
	if place == nil {
		known := store(m.event(name), p)
		// Libvirt's 0 is no time: the balloon's driver has told nothing yet.
		m.LastUpdate.Set = m.LastUpdate.V > 0
		return known
	}
	p.num.V *= 1024
	return store(place, p)
}

func (m *Memory) size(name []byte) *Num {
	switch string(name) {
	case "current":
		return &m.Current
	case "maximum":
		return &m.Maximum
	case "rss":
		return &m.Resident
	case "available":
		return &m.Available
	case "unused":
		return &m.Unused
	case "usable":
		return &m.Usable
	case "disk_caches":
		return &m.DiskCaches
	case "swap_in":
		return &m.SwapIn
	case "swap_out":
		return &m.SwapOut
	}
	return nil
}

func (m *Memory) event(name []byte) *Num {
	switch string(name) {
	case "major_fault":
		return &m.MajorFaults
	case "minor_fault":
		return &m.MinorFaults
	case "hugetlb_pgalloc":
		return &m.HugetlbAllocations
	case "hugetlb_pgfail":
		return &m.HugetlbFails
	case "last-update":
		return &m.LastUpdate
	}
	return nil
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

func (vm *VM) setVCPU(field []byte, p *param) bool {
	switch string(field) {
	case "current":
		return store(&vm.Current, p)
	case "maximum":
		return store(&vm.Maximum, p)
	}
	n, name, ok := index(field)
	last := len(vm.VCPUs) - 1
	if !ok || last >= 0 && n < vm.VCPUs[last].Index {
		return false
	}
	if last < 0 || n > vm.VCPUs[last].Index {
		vm.VCPUs = another(vm.VCPUs)
		last++
		vm.VCPUs[last] = VCPU{Index: n}
	}
	cpu := &vm.VCPUs[last]
	switch string(name) {
	case "state":
		states := [...]VCPUState{VCPUOffline, VCPURunning, VCPUBlocked}
		if !p.num.Set || p.num.V >= uint64(len(states)) {
			return false
		}
		cpu.State = states[p.num.V]
		return true
	case "time":
		return store(&cpu.Time, p)
	case "wait":
		return store(&cpu.Wait, p)
	case "delay":
		return store(&cpu.Delay, p)
	case "halted":
		return store(&cpu.Halted, p)
	}
	return false
}

// setInterface stores a value of the interface group. The name comes first.
func (d *domain) setInterface(field []byte, p *param) bool {
	n, name, ok := index(field)
	if string(name) == "name" {
		if !ok || d.nic != none && n <= d.nic || !d.vm.addInterface(p.str) {
			return false
		}
		d.nic = n
		return true
	}
	if string(field) == "count" {
		return true
	}
	if !ok || n != d.nic {
		return false
	}
	return store(d.vm.Interfaces[len(d.vm.Interfaces)-1].field(name), p)
}

// addInterface refuses a name that could not tell two interfaces apart.
func (vm *VM) addInterface(name []byte) bool {
	if len(name) == 0 || len(name) > maxName || slices.ContainsFunc(vm.Interfaces, func(nic Interface) bool { return nic.Name == string(name) }) {
		return false
	}
	vm.Interfaces = another(vm.Interfaces)
	nic := &vm.Interfaces[len(vm.Interfaces)-1]
	*nic = Interface{Name: intern(nic.Name, name)}
	return true
}

func (nic *Interface) field(name []byte) *Num {
	switch string(name) {
	case "rx.bytes":
		return &nic.Receive.Bytes
	case "rx.pkts":
		return &nic.Receive.Packets
	case "rx.errs":
		return &nic.Receive.Errors
	case "rx.drop":
		return &nic.Receive.Drops
	case "tx.bytes":
		return &nic.Transmit.Bytes
	case "tx.pkts":
		return &nic.Transmit.Packets
	case "tx.errs":
		return &nic.Transmit.Errors
	case "tx.drop":
		return &nic.Transmit.Drops
	}
	return nil
}

// setDisk stores a value of the block group. The name comes first.
func (d *domain) setDisk(field []byte, p *param) bool {
	n, name, ok := index(field)
	if string(name) == "name" {
		if !ok || d.disk != none && n <= d.disk || !d.vm.addDisk(p.str) {
			return false
		}
		d.disk = n
		return true
	}
	if string(field) == "count" {
		return true
	}
	if !ok || n != d.disk {
		return false
	}
	return store(d.vm.Blocks[len(d.vm.Blocks)-1].field(name), p)
}

// addDisk refuses a name that could not tell two disks apart.
func (vm *VM) addDisk(device []byte) bool {
	if len(device) == 0 || len(device) > maxName || slices.ContainsFunc(vm.Blocks, func(disk Block) bool { return disk.Device == string(device) }) {
		return false
	}
	vm.Blocks = another(vm.Blocks)
	disk := &vm.Blocks[len(vm.Blocks)-1]
	*disk = Block{Device: intern(disk.Device, device)}
	return true
}

func (disk *Block) field(name []byte) *Num {
	switch string(name) {
	case "rd.reqs":
		return &disk.Read.Requests
	case "rd.bytes":
		return &disk.Read.Bytes
	case "rd.times":
		return &disk.Read.Time
	case "wr.reqs":
		return &disk.Write.Requests
	case "wr.bytes":
		return &disk.Write.Bytes
	case "wr.times":
		return &disk.Write.Time
	case "fl.reqs":
		return &disk.Flush.Requests
	case "fl.times":
		return &disk.Flush.Time
	case "allocation":
		return &disk.Allocation
	case "capacity":
		return &disk.Capacity
	case "physical":
		return &disk.Physical
	}
	return nil
}
