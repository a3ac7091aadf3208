package qemu

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	// patience is how long a file of /proc is waited for that may wait for
	// somebody: the command line for the lock on the process's memory, a tap's
	// descriptor for the lock on all network devices. Without it the machine
	// would be missing; what was known before is waited for much less.
	patience      = 500 * time.Millisecond
	patienceAgain = 50 * time.Millisecond
	// patienceVFs is how long a driver may take to count; some ask their card
	// for each virtual function.
	patienceVFs = 100 * time.Millisecond
	// mostLost is after how much time lost a collection waits no more.
	mostLost = 200 * time.Millisecond
	// lasting is how long what a process has is believed to stay as it is:
	// its descriptors, its control groups and their limits, the names of its
	// threads. Machines are looked at in turn, so that it may be twice that.
	lasting = time.Minute
	// mostCalm is after how many looks at a process that has the same
	// descriptors and group as before it is examined all the same.
	mostCalm = 10
	// mostQuiet is the same where the programs in the kernel tell that it has
	// the same files, which they know from others under the same numbers.
	mostQuiet = 60
	// mostDescriptors bounds those of a process that are looked at.
	mostDescriptors = 4096
)

// belongings are what a QEMU process has for long: its network devices and
// control groups.
type belongings struct {
	netns  string // of its network devices
	taps   []tap  // by name
	vfs    []VF   // by address, without counters
	groups groupPaths

	// What shows that all this is as it was: the numbers of its descriptors and
	// of its threads with a role, and /proc/PID/cgroup.
	descriptors, tids []int
	place             []byte
	things            uint64 // what was told of them all just before; see emulator.things
}

// like reports whether nothing shows that a process has other things now.
func (b *belongings) like(before *belongings) bool {
	return slices.Equal(b.descriptors, before.descriptors) && slices.Equal(b.tids, before.tids) && bytes.Equal(b.place, before.place)
}

// careful reads what may take long, until too much time was lost with it.
type careful struct {
	ctx  context.Context // of the collection
	root *hostfs.Root
	lost time.Duration
}

// take reads something with patience. What is done in there must share
// nothing with its caller if it takes longer. What hung before and still does
// fails at once, so that it takes time of one collection only.
func take[T any](c *careful, patience time.Duration, op, name string, read func() (T, error)) (T, error) {
	if c.lost >= mostLost {
		var none T
		return none, errLate
	}
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	value, err := hostfs.Within(c.root.Within(ctx), op, name, read)
	if ctx.Err() != nil {
		c.lost += patience
	}
	return value, err
}

var errLate = errors.New("not tried: too much else took too long")

// examine learns what a process is and has, if that is not known or was
// learnt long ago. It reports whether the process runs a machine.
func (s *scanner) examine(careful *careful, e *emulator) bool {
	if e.id == nil {
		root, name := s.root, procPath(e.pid, "cmdline")
		data, err := take(careful, patience, "read", name, func() ([]byte, error) { return root.ReadFile(name) })
		if err != nil {
			return false // until it can be read, it is no machine under a wrong name
		}
		id := parseCmdline(data)
		e.id = &id
	}
	now, things := s.now(), e.things()
	young := e.calm < 1 && things != 0 && e.belongings.things == 0
	if !young {
		e.belongings.things = cmp.Or(e.belongings.things, things)
	}
	before := e.belongings
	changed := things != 0 && things != before.things
	if !e.id.machine || now.Before(e.due) && (!changed || now.Sub(e.examined) < rescan) {
		return e.id.machine
	}
	// A descriptor's number may be another's by now: taps that are gone show
	// that, functions do not.
	believed := e.calm > 0 && !changed && len(before.vfs) == 0
	if believed && things != 0 && things == before.things && e.calm < mostQuiet {
		s.looked(e, before)
		return true
	}
	root, pid, here := s.root, e.pid, s.here
	tids := make([]int, 0, len(e.threads))
	for _, t := range e.threads {
		if t.own {
			tids = append(tids, t.tid)
		}
	}
	wait := patienceAgain
	if e.due.IsZero() {
		wait = patience
	}
	brief := believed && e.calm < mostCalm
	found, err := take(careful, wait, "examine", procPath(pid, ""), func() (belongings, error) {
		b := look(root, pid, tids)
		if brief && b.like(&before) {
			return before, nil
		}
		b.groups = findGroups(root, pid, b.tids, b.place, here)
		b.findDevices(root, pid)
		return b, nil
	})
	if err != nil {
		return true // as far as it is known
	}
	// Only what two examinations in a row found is believed by its signs, but for
	// a process that had time to open all it wants before the first.
	first := e.due.IsZero()
	switch {
	case first && now.Sub(s.startTime(e.start)) < lasting, !first && (changed || !found.like(&before)):
		e.calm = -1
	case !brief:
		e.calm = 0
	}
	found.things = cmp.Or(things, before.things)
	s.looked(e, found)
	return true
}

// looked notes what a look at a process found.
func (s *scanner) looked(e *emulator, found belongings) {
	e.calm++
	e.belongings, e.examined = found, s.now()
	e.due = e.examined.Add(lasting + time.Duration(e.pid%int(lasting/time.Second))*time.Second)
	s.joinCgroup(e)
}

// look reads what shows whether a process has the same things as before.
func look(root *hostfs.Root, pid int, tids []int) belongings {
	// Without them there is nothing to find.
	descriptors, _ := root.ReadNumbers(procPath(pid, "fd"), nil)
	place, _ := root.ReadFile(procPath(pid, "cgroup"))
	return belongings{descriptors: descriptors[:min(len(descriptors), mostDescriptors)], tids: tids, place: slices.Clone(place)} // not the page that it was read into
}

// findDevices looks through the descriptors of a process for taps and for
// functions of PCI devices.
func (b *belongings) findDevices(root *hostfs.Root, pid int) {
	if link, err := root.ReadLink(procPath(pid, "ns/net")); err == nil {
		b.netns = link
	} else {
		b.netns = strconv.Itoa(pid)
	}
	for _, fd := range b.descriptors {
		link, err := root.ReadLink(procPath(pid, "fd/"+strconv.Itoa(fd)))
		if err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(link, "/dev/net/tun"):
			if data, err := root.ReadFile(procPath(pid, "fdinfo/"+strconv.Itoa(fd))); err == nil {
				b.addTap(tap{name: parseTunName(data)})
			}
		case strings.HasPrefix(link, "/dev/tap"):
			if data, err := root.ReadFile(procPath(pid, "net/dev_mcast")); err == nil {
				b.addTap(tap{name: parseDeviceName(data, strings.TrimPrefix(link, "/dev/tap")), direct: true})
			}
		case strings.HasPrefix(link, "/dev/vfio/"):
			b.addVFs(root, strings.TrimPrefix(link, "/dev/vfio/"))
		}
	}
	slices.SortFunc(b.vfs, func(a, b VF) int { return cmp.Compare(a.Address, b.Address) })
}

// addTap adds a tap, of which each queue is a descriptor.
func (b *belongings) addTap(t tap) {
	at, found := slices.BinarySearchFunc(b.taps, t, func(a, b tap) int { return cmp.Compare(a.name, b.name) })
	if t.name != "" && !found {
		b.taps = slices.Insert(b.taps, at, t)
	}
}

// addVFs adds the virtual functions behind a device of VFIO: a group, named by
// number, or a single device, devices/vfioN. Other functions are no network's.
func (b *belongings) addVFs(root *hostfs.Root, device string) {
	dir := "/sys/kernel/iommu_groups/" + device + "/devices"
	if single, found := strings.CutPrefix(device, "devices/"); found {
		dir = "/sys/class/vfio-dev/" + path.Base(single)
		link, err := root.ReadLink(dir + "/device")
		if err == nil {
			b.addVF(root, path.Base(link))
		}
		return
	}
	addresses, err := root.ReadDir(dir)
	if err != nil {
		return
	}
	for _, address := range addresses {
		b.addVF(root, address)
	}
}

// addVF adds a function, if it is a virtual one of a network device
// (Documentation/ABI/testing/sysfs-bus-pci: physfn and virtfnN).
func (b *belongings) addVF(root *hostfs.Root, address string) {
	const devices = "/sys/bus/pci/devices/"
	link, err := root.ReadLink(devices + address + "/physfn")
	if err != nil || slices.ContainsFunc(b.vfs, func(vf VF) bool { return vf.Address == address }) {
		return
	}
	parent := devices + path.Base(link)
	names, err := root.ReadDir(parent + "/net")
	if err != nil || len(names) == 0 {
		return
	}
	entries, err := root.ReadDir(parent)
	if err != nil {
		return
	}
	for _, entry := range entries {
		number, isFunction := strings.CutPrefix(entry, "virtfn")
		if !isFunction {
			continue
		}
		index, err := strconv.Atoi(number)
		target, err2 := root.ReadLink(parent + "/" + entry)
		if err == nil && err2 == nil && path.Base(target) == address {
			b.vfs = append(b.vfs, VF{Address: address, PF: names[0], Index: index})
			return
		}
	}
}

// readVFs asks for the counters of all virtual functions, each physical one
// once. The kernel answers when nobody changes a network device.
func (s *scanner) readVFs(careful *careful, vms []VM) {
	if s.vfs == nil {
		return
	}
	var asked map[string]map[int]VFCounters
	for i := range vms {
		held := vms[i].Process.VFs
		for j := range held {
			vf := &held[j]
			counters, known := asked[vf.PF]
			if !known {
				if asked == nil {
					asked = make(map[string]map[int]VFCounters)
				}
				// What cannot be told has no counters, now for none of them.
				reader, pf := s.vfs, vf.PF
				counters, _ = take(careful, patienceVFs, "count VFs of", pf, func() (map[int]VFCounters, error) { return reader.VFCounters(pf) })
				asked[vf.PF] = counters
			}
			vf.VFCounters = counters[vf.Index]
		}
	}
}
