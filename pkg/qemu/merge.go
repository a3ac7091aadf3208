package qemu

import (
	"cmp"
	"slices"
	"time"
)

// identityKey is what makes a machine's series its own.
type identityKey struct{ namespace, name, uuid string }

func (vm *VM) key() identityKey { return identityKey{vm.Namespace, vm.Name, vm.UUID} }

// entry is a machine while its parts are brought together: what each class
// told of it, or nil.
type entry struct {
	key                     identityKey
	light, monitor, process *VM
	health                  Health
}

// merger makes one entry per machine of what the classes told. It is empty
// between merges, and keeps its memory.
type merger struct {
	entries        []entry
	seen           map[identityKey]bool
	byUUID, byName map[string]int
	duplicates     int // entries dropped because another machine has the same identity
}

func newMerger() *merger {
	return &merger{seen: make(map[identityKey]bool), byUUID: make(map[string]int), byName: make(map[string]int)}
}

func (m *merger) reset() {
	clear(m.entries)
	clear(m.seen)
	clear(m.byUUID)
	clear(m.byName)
	m.entries, m.duplicates = m.entries[:0], 0
}

// add takes in an entry, unless there is one of the same identity.
func (m *merger) add(e entry) {
	if m.seen[e.key] {
		m.duplicates++
		return
	}
	m.seen[e.key] = true
	m.entries = append(m.entries, e)
}

// addDaemon takes in a daemon's machines; those added first are trusted more.
// The light class says which there are, and monitor adds to them.
func (m *merger) addDaemon(light *reading, monitor *monitor, now time.Time) {
	for i := range light.vms {
		vm := &light.vms[i]
		e := entry{key: vm.key(), light: vm}
		e.monitor, e.health = monitor.numbers(&light.refs[i], now)
		m.add(e)
	}
}

// addProcesses gives each machine its process: the one with its UUID, or
// with its name when the process has no UUID. What is left is a machine of
// which no daemon knows.
func (m *merger) addProcesses(processes []VM) {
	for i := range m.entries {
		vm := m.entries[i].light
		m.byUUID[vm.UUID] = i
		if vm.State != StateShutoff {
			m.byName[vm.Name] = i
		}
	}
	for i := range processes {
		process := &processes[i]
		at, found := m.byUUID[process.UUID]
		if process.UUID == "" {
			at, found = m.byName[process.Name]
		}
		if found && m.entries[at].process == nil {
			m.entries[at].process = process
		} else {
			m.add(entry{key: process.key(), process: process})
		}
	}
}

// appendTo copies all machines to the end of vms, sorted by namespace, name
// and UUID.
func (m *merger) appendTo(vms []VM) []VM {
	slices.SortFunc(m.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.key.namespace, b.key.namespace), cmp.Compare(a.key.name, b.key.name), cmp.Compare(a.key.uuid, b.key.uuid))
	})
	for i := range m.entries {
		vms = another(vms)
		m.entries[i].copyTo(&vms[len(vms)-1])
	}
	return vms
}

// copyTo copies the parts of a machine. What the machine in that place had
// before serves as memory.
func (e *entry) copyTo(vm *VM) {
	none := VM{}
	who, light, monitor := e.light, e.light, e.monitor
	if light == nil {
		who, light = e.process, &none
	}
	if monitor == nil {
		monitor = &none
	}
	before := *vm
	*vm = *monitor
	vm.Namespace, vm.Name, vm.UUID, vm.Source = who.Namespace, who.Name, who.UUID, who.Source
	vm.State, vm.StateReason = light.State, light.StateReason
	vm.Interfaces = refill(before.Interfaces, light.Interfaces)
	vm.Perf = refill(before.Perf, light.Perf)
	vm.Bandwidth = refill(before.Bandwidth, light.Bandwidth)
	vm.Caches = refill(before.Caches, monitor.Caches)
	vm.VCPUs = refill(before.VCPUs, monitor.VCPUs)
	vm.Blocks = refill(before.Blocks, monitor.Blocks)
	vm.BlockTimes = refill(before.BlockTimes, monitor.BlockTimes)
	vm.BlockBins = refill(before.BlockBins, monitor.BlockBins)
	vm.IOThreads = refill(before.IOThreads, monitor.IOThreads)
	vm.KVM = refill(before.KVM, monitor.KVM)
	vm.VCPUKVM = refill(before.VCPUKVM, monitor.VCPUKVM)
	vm.Process, vm.Monitor = nil, e.health
	if e.process != nil {
		vm.Process = e.process.Process
	}
}

// refill puts elements into the memory of others.
func refill[T any](memory, with []T) []T { return append(memory[:0], with...) }

// another makes a slice one element longer. The new element is zero, or was
// in use before and has memory to use again.
func another[T any](s []T) []T {
	if len(s) < cap(s) {
		return s[:len(s)+1]
	}
	var zero T
	return append(s, zero)
}
