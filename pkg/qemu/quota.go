package qemu

import (
	"bytes"
	"slices"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// cgroup is what is kept of a machine's control groups between readings.
type cgroup struct {
	groups groupPaths
	cpu    []*cpuGroup
	memory []memoryGroup
	// events is memory.events of the topmost group; of version 1 it is
	// memory.oom_control, with memory.failcnt beside it.
	events, failures *hostfs.File
	pressure         [3]*hostfs.File
	used             cpuStat // by all cpu groups, those that have ended too
}

// cpuGroup is a group with the cpu controller.
type cpuGroup struct {
	dir   string
	whole bool // it holds all threads
	limit Num  // its quota, when the machine was examined last
	stat  *hostfs.File
	last  cpuStat
}

// memoryGroup is a group with the memory controller.
type memoryGroup struct{ usage, limit *hostfs.File }

// joinCgroup takes over which groups a machine is in, and reads what of them
// may be read once in a while: quotas, and the counters of groups without one.
func (s *scanner) joinCgroup(e *emulator) {
	c, now := &e.cgroup, &e.belongings.groups
	s.countGroups(&c.groups, -1)
	s.countGroups(now, 1)
	if !slices.Equal(c.groups.memory, now.memory) || c.groups.pressure != now.pressure {
		s.closeMemory(c)
	}
	s.openMemory(c, now)
	kept := make([]*cpuGroup, 0, len(now.cpu))
	for _, dir := range now.cpu {
		at := slices.IndexFunc(c.cpu, func(g *cpuGroup) bool { return g.dir == dir })
		if at >= 0 {
			kept = append(kept, c.cpu[at])
			continue
		}
		kept = append(kept, &cpuGroup{dir: dir, stat: s.root.File(dir + "/cpu.stat")})
	}
	for _, g := range c.cpu {
		if !slices.Contains(kept, g) {
			s.closeFile(g.stat)
		}
	}
	c.cpu, c.groups = kept, *now
	for _, g := range c.cpu {
		g.whole = slices.Contains(now.whole, g.dir)
		g.limit = s.readQuota(g.dir, now.unified)
		s.readCPUGroup(c, g)
		if !g.limit.Set {
			s.closeFile(g.stat)
		}
	}
}

// openMemory names the files that are read at every scrape, again those that
// were not there.
func (s *scanner) openMemory(c *cgroup, now *groupPaths) {
	usage, limit, events := "/memory.usage_in_bytes", "/memory.limit_in_bytes", "/memory.oom_control"
	if now.unified {
		usage, limit, events = "/memory.current", "/memory.max", "/memory.events"
	}
	if len(c.memory) == 0 {
		for _, dir := range now.memory {
			c.memory = append(c.memory, memoryGroup{usage: s.root.File(dir + usage), limit: s.root.File(dir + limit)})
		}
	}
	if len(now.memory) > 0 && c.events == nil {
		c.events = s.root.File(now.memory[0] + events)
		if !now.unified {
			c.failures = s.root.File(now.memory[0] + "/memory.failcnt")
		}
	}
	if now.pressure == "" {
		return
	}
	for i, name := range [...]string{"/cpu.pressure", "/memory.pressure", "/io.pressure"} {
		if c.pressure[i] == nil {
			c.pressure[i] = s.root.File(now.pressure + name)
		}
	}
}

func (s *scanner) closeMemory(c *cgroup) {
	for _, g := range c.memory {
		s.closeFile(g.usage)
		s.closeFile(g.limit)
	}
	for _, file := range []*hostfs.File{c.events, c.failures, c.pressure[0], c.pressure[1], c.pressure[2]} {
		s.closeFile(file)
	}
	c.memory, c.events, c.failures, c.pressure = nil, nil, nil, [3]*hostfs.File{}
}

// leaveCgroup gives back what is kept of a machine's groups.
func (s *scanner) leaveCgroup(e *emulator) {
	s.countGroups(&e.cgroup.groups, -1)
	s.closeMemory(&e.cgroup)
	for _, g := range e.cgroup.cpu {
		s.closeFile(g.stat)
	}
	e.cgroup = cgroup{}
}

// countGroups counts how many machines are in a group.
func (s *scanner) countGroups(g *groupPaths, machines int) {
	for kind, top := range g.tops() {
		if top == "" {
			continue
		}
		key := groupKey{kind, top}
		if s.groups[key] += machines; s.groups[key] == 0 {
			delete(s.groups, key)
		}
	}
}

type groupKey struct {
	kind int
	dir  string
}

// readQuota reads a group's quota: cpu.max, or cpu.cfs_quota_us, which is -1
// for none, and cpu.cfs_period_us.
func (s *scanner) readQuota(dir string, unified bool) Num {
	once := func(name string) []byte {
		file := s.root.File(dir + name)
		data, err := s.readFile(file)
		s.closeFile(file)
		if err != nil {
			return nil
		}
		return data
	}
	if unified {
		if data := once("/cpu.max"); data != nil {
			return counted(s, data, parseCPUMax)
		}
		return Num{}
	}
	data := once("/cpu.cfs_quota_us")
	if data == nil || bytes.HasPrefix(data, []byte("-")) {
		return Num{}
	}
	quota := counted(s, data, numberLine)
	period := counted(s, once("/cpu.cfs_period_us"), numberLine)
	if !quota.Set || !period.Set {
		return Num{}
	}
	limit, err := quotaOf(quota.V, period.V)
	if err != nil {
		s.unused++
	}
	return limit
}

// readCPUGroup adds what a group counted since the last reading.
func (s *scanner) readCPUGroup(c *cgroup, g *cpuGroup) {
	data, err := s.readFile(g.stat)
	if err != nil {
		return
	}
	now := counted(s, data, parseCPUStat)
	grow(&c.used.periods, &g.last.periods, now.periods)
	grow(&c.used.throttled, &g.last.throttled, now.throttled)
	grow(&c.used.time, &g.last.time, now.time)
}

// readCgroup reads the control groups of a machine, but those that others
// share: what several machines use together says nothing about one.
func (s *scanner) readCgroup(e *emulator, to *Cgroup) {
	c := &e.cgroup
	var own [groupKinds]bool
	for kind, top := range c.groups.tops() {
		own[kind] = s.groups[groupKey{kind, top}] == 1
	}
	if own[cpuGroups] {
		s.readCPU(c, to)
	}
	if own[memoryGroups] {
		s.readMemory(c, to)
	}
	if !own[pressureGroups] {
		return
	}
	for i, pressure := range [...]*Pressure{&to.CPUPressure, &to.MemoryPressure, &to.IOPressure} {
		if c.pressure[i] == nil {
			continue
		}
		data, err := s.readFile(c.pressure[i])
		if err == nil {
			*pressure = counted(s, data, parsePressure)
		} else {
			c.pressure[i] = nil // until the machine is examined again
		}
	}
}

func (s *scanner) readCPU(c *cgroup, to *Cgroup) {
	for _, g := range c.cpu {
		if !g.limit.Set {
			continue // it counts nothing
		}
		s.readCPUGroup(c, g)
		if g.whole && (!to.CPULimit.Set || g.limit.V < to.CPULimit.V) {
			to.CPULimit = g.limit
		}
	}
	to.Periods, to.Throttled, to.ThrottledTime = c.used.periods, c.used.throttled, c.used.time
}

func (s *scanner) readMemory(c *cgroup, to *Cgroup) {
	for i, g := range c.memory {
		usage := s.readNum(g.usage, numberLine)
		if i == 0 {
			to.Memory = usage
		}
		limit := s.readNum(g.limit, parseMemoryLimit)
		if !limit.Set {
			continue
		}
		if !to.MemoryLimit.Set || limit.V < to.MemoryLimit.V {
			to.MemoryLimit = limit
		}
		if left := limit.V - min(usage.V, limit.V); usage.Set && (!to.MemoryHeadroom.Set || left < to.MemoryHeadroom.V) {
			to.MemoryHeadroom = Some(left)
		}
	}
	if c.events == nil {
		return
	}
	if data, err := s.readFile(c.events); err == nil {
		to.Events = counted(s, data, parseMemoryEvents)
	}
	if c.failures != nil {
		to.Events.Max = s.readNum(c.failures, numberLine)
	}
}

// readNum reads a file of one number.
func (s *scanner) readNum(file *hostfs.File, parse func([]byte) (Num, error)) Num {
	data, err := s.readFile(file)
	if err != nil {
		return Num{}
	}
	return counted(s, data, parse)
}
