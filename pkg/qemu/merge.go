package qemu

import (
	"cmp"
	"slices"
	"time"
)

// identityKey is what makes a machine's series its own.
type identityKey struct{ namespace, name, uuid string }

// place is where a process finds its machine: by UUID or domain name, but
// never out of the pod that it runs in, or into one.
type place struct{ pod, id string }

// entry is a machine while its parts are brought together: what each class
// told of it, or nil.
type entry struct {
	key                     identityKey
	naming                  naming
	definition              *Definition
	agent                   Num
	light, monitor, process *VM
	counted                 bool // CPU times are the kernel's to tell
	pid                     int  // of its process, as the daemon noted it; 0: unknown
	health                  Health
}

// merger makes one entry per machine of what the classes told. It is empty
// between merges, and keeps its memory.
type merger struct {
	entries        []entry
	seen           map[identityKey]bool
	byUUID, byName map[place]int
	duplicates     int  // entries dropped because another machine has the same identity
	early          bool // the kernel class has not told anything yet

	// named is how machines were called by the daemon that knew their process
	// last: they are still called so when it does not answer.
	named, before map[ProcessID]naming
}

func newMerger() *merger {
	return &merger{
		seen: make(map[identityKey]bool), byUUID: make(map[place]int), byName: make(map[place]int),
		named: make(map[ProcessID]naming), before: make(map[ProcessID]naming),
	}
}

func (m *merger) reset() {
	clear(m.entries)
	clear(m.seen)
	clear(m.byUUID)
	clear(m.byName)
	m.entries, m.duplicates = m.entries[:0], 0
}

// add takes in an entry, unless there is one of the same identity.
func (m *merger) add(e entry, uuid string) {
	e.key = identityKey{e.naming.namespace, e.naming.name, uuid}
	if m.seen[e.key] {
		m.duplicates++
		return
	}
	m.seen[e.key] = true
	m.entries = append(m.entries, e)
}

// addDaemon takes in a daemon's machines, which run in a pod; those added
// first are trusted more. The light class says which there are, and monitor
// and control add to them.
func (m *merger) addDaemon(light *reading, d *daemonSources, in pod, now time.Time) {
	for i := range light.vms {
		vm := &light.vms[i]
		e := entry{light: vm}
		e.monitor, e.health, e.counted = d.monitor.numbers(&light.refs[i], now)
		e.counted = e.counted || m.early
		e.pid = d.monitor.process(&light.refs[i])
		e.definition, e.agent = d.control.about(&light.refs[i])
		e.naming = identify(vm.Name, vm.Source, e.definition, in)
		m.add(e, vm.UUID)
	}
}

// addProcesses gives each machine its process: the one with its UUID, or
// with its name when the process has no UUID. Of several machines, one that is not
// shut off has it, and of those the one that was added first; of several processes
// the one that the daemon started. What is left is a machine of which no daemon knows.
func (m *merger) addProcesses(processes []VM, podOf func(uid string) pod) {
	for _, off := range []bool{false, true} {
		for i := range m.entries {
			if e := &m.entries[i]; (e.light.State == StateShutoff) == off {
				claim(m.byUUID, place{e.naming.pod.uid, e.light.UUID}, i)
				if !off {
					claim(m.byName, place{e.naming.pod.uid, e.light.Name}, i)
				}
			}
		}
	}
	for i := range processes {
		if e := m.claimed(&processes[i]); e != nil && e.pid == processes[i].Process.PID {
			e.process = &processes[i]
		}
	}
	m.named, m.before = m.before, m.named
	clear(m.named)
	for i := range processes {
		process := &processes[i]
		id := ProcessID{process.Process.PID, process.Process.Start}
		e := m.claimed(process)
		if e != nil && e.process == nil {
			e.process = process
		}
		called, known := m.before[id]
		switch {
		case e != nil && e.process == process:
			m.named[id] = e.naming
			continue
		case e == nil && known:
			m.named[id] = called
		default:
			called = identify(process.Name, SourceProc, nil, podOf(process.Pod))
		}
		m.add(entry{naming: called, process: process}, process.UUID)
	}
}

// claimed returns the machine that a process claims to be, or nil.
func (m *merger) claimed(process *VM) *entry {
	at, found := m.byUUID[place{process.Pod, process.UUID}]
	if process.UUID == "" {
		at, found = m.byName[place{process.Pod, process.Name}]
	}
	if !found {
		return nil
	}
	return &m.entries[at]
}

func claim(table map[place]int, at place, entry int) {
	if _, taken := table[at]; !taken {
		table[at] = entry
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
	vm.Namespace, vm.Name, vm.UUID, vm.Source = e.key.namespace, e.key.name, e.key.uuid, who.Source
	vm.Domain, vm.Kind, vm.Pod, vm.PodName = e.naming.domain, e.naming.kind, e.naming.pod.uid, e.naming.pod.name
	vm.Definition, vm.Agent = e.definition, e.agent
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
	switch {
	case e.process != nil:
		vm.join(e.process, before.Process)
	case e.counted:
		vm.uncount()
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
