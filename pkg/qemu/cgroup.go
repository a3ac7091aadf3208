package qemu

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// groupPaths are the control groups of a machine, each named by its directory. A
// hierarchy in which the machine has none of its own is empty.
type groupPaths struct {
	// cpu are all that its threads are in and that hold nothing but the
	// machine; whole and memory those that hold all of it, with the cpu and
	// the memory controller. The topmost is first.
	cpu, whole, memory []string
	pressure           string // the topmost in the unified hierarchy
	unified            bool   // cpu and memory are version 2
}

// tops are the machine's topmost groups of each kind, to see whether other
// machines are in them too.
func (g *groupPaths) tops() (tops [groupKinds]string) {
	if len(g.cpu) > 0 {
		tops[cpuGroups] = g.cpu[0]
	}
	if len(g.memory) > 0 {
		tops[memoryGroups] = g.memory[0]
	}
	tops[pressureGroups] = g.pressure
	return tops
}

const (
	cpuGroups = iota
	memoryGroups
	pressureGroups
	groupKinds
)

// cgroupRoot is where control groups are mounted: version 2 itself, or a
// directory for each hierarchy of version 1 with unified beside them.
const cgroupRoot = "/sys/fs/cgroup"

// groupHere finds the control group in which this process sits, below which the
// kernel lets it see groups by their names: of all others it tells the way from
// there, "/..", and then down (cgroup_namespaces(7)). Empty means that it sees all.
// Only containers on version 2 are boxed in like that.
func groupHere(root *hostfs.Root) (string, error) {
	data, _ := root.ReadFile(procPath(1, "cgroup")) // there is none in a kernel without control groups
	if !bytes.Contains(data, []byte("\n0::/../")) && !bytes.HasPrefix(data, []byte("0::/../")) {
		return "", nil
	}
	here, err := os.Stat(cgroupRoot) // ours, not the host's
	if err != nil {
		return "", err
	}
	top, err := root.Resolve(cgroupRoot)
	if err != nil {
		return "", err
	}
	found := ""
	err = filepath.WalkDir(top, func(name string, entry fs.DirEntry, _ error) error {
		if entry == nil || !entry.IsDir() { // a group may end meanwhile
			return nil
		}
		if info, err := entry.Info(); err == nil && os.SameFile(info, here) {
			found = strings.TrimPrefix(name, top)
			return fs.SkipAll
		}
		return nil
	})
	if found == "" && err == nil {
		err = errors.New("this process's own control group is not among the host's")
	}
	return found, err
}

// findGroups reads which control groups the threads of a process are in.
// libvirt gives its threads groups of their own below that of the machine. here is
// the one that this process sits in; see groupHere.
func findGroups(root *hostfs.Root, pid int, tids []int, own []byte, here string) groupPaths {
	if len(own) == 0 {
		return groupPaths{}
	}
	pure, err := root.Exists(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return groupPaths{}
	}
	threads := [][]byte{own}
	for _, tid := range tids {
		if data, err := root.ReadFile(taskPath(pid, tid, "cgroup")); err == nil {
			threads = append(threads, data)
		}
	}
	if pure {
		all, whole := ownGroups(threads, "", cgroupRoot, here)
		g := groupPaths{cpu: all, whole: whole, memory: whole, unified: true}
		if len(whole) > 0 {
			g.pressure = whole[0]
		}
		return g
	}
	var g groupPaths
	g.cpu, g.whole = ownGroups(threads, "cpu", cgroupRoot+"/cpu", "")
	_, g.memory = ownGroups(threads, "memory", cgroupRoot+"/memory", "")
	if _, whole := ownGroups(threads, "", cgroupRoot+"/unified", ""); len(whole) > 0 {
		g.pressure = whole[0]
	}
	return g
}

// ownGroups returns the directories of the groups in one hierarchy that the
// threads are in from the machine's topmost down, and those of them that hold
// all threads. The root group is nobody's own.
func ownGroups(threads [][]byte, controller, mount, here string) (all, whole []string) {
	for i, data := range threads {
		place, found := parseCgroup(data, controller, here)
		if !found {
			continue
		}
		chain := ownChain(place)
		for j, group := range chain {
			if dir := mount + group; !slices.Contains(all, dir) {
				all = append(all, dir)
			}
			chain[j] = mount + group
		}
		if i == 0 {
			whole = chain
		} else {
			whole = slices.DeleteFunc(whole, func(dir string) bool { return !slices.Contains(chain, dir) })
		}
	}
	return all, whole
}

// parseCgroup finds the path of a process in the hierarchy of a controller, or
// in the unified one for no controller, in /proc/PID/cgroup (cgroups(7)). A
// path outside the reader's own namespace is none, unless it is known where that is.
func parseCgroup(data []byte, controller, here string) (string, bool) {
	for line := range bytes.Lines(data) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 || !slices.Contains(strings.Split(parts[1], ","), controller) || parts[0] == "0" != (controller == "") {
			continue
		}
		place, above := parts[2], here
		for place == "/.." || strings.HasPrefix(place, "/../") {
			if above == "" || above == "/" {
				return "", false
			}
			place, above = place[len("/.."):], path.Dir(above)
		}
		if path.Clean("/"+place) != cmp.Or(place, "/") {
			return "", false
		}
		return path.Join("/", above, place), true
	}
	return "", false
}

// ownChain returns the groups on the way to place from the topmost that holds
// one machine only: a pod, or what libvirt makes for a domain. Of others
// nothing is known but the last group.
func ownChain(place string) []string {
	if place == "/" {
		return nil
	}
	names := strings.Split(place[1:], "/")
	first := slices.IndexFunc(names, holdsMachine)
	if first < 0 {
		first = len(names) - 1
	}
	var chain []string
	for i := first; i < len(names); i++ {
		chain = append(chain, "/"+strings.Join(names[:i+1], "/"))
	}
	return chain
}

// holdsMachine reports whether a group's name is that of a pod of Kubernetes
// (podUID, or …-podUID.slice with systemd), or of a domain of libvirt
// (machine-qemu….scope with systemd, NAME.libvirt-qemu without).
func holdsMachine(name string) bool {
	return strings.HasPrefix(name, "machine-qemu") && strings.HasSuffix(name, ".scope") || strings.HasSuffix(name, ".libvirt-qemu") || podOfGroup(name) != ""
}

// cpuStat is what cpu.stat says about a quota, in nanoseconds.
type cpuStat struct{ periods, throttled, time Num }

// parseCPUStat reads cpu.stat of a control group: throttled_usec of version 2
// or throttled_time of version 1, which counts nanoseconds.
func parseCPUStat(data []byte) (cpuStat, error) {
	var s cpuStat
	err := eachPair(data, ' ', func(key []byte, value uint64) {
		switch string(key) {
		case "nr_periods":
			s.periods = Some(value)
		case "nr_throttled":
			s.throttled = Some(value)
		case "throttled_usec":
			s.time = Some(value * 1000)
		case "throttled_time":
			s.time = Some(value)
		}
	})
	return s, err
}

// parseCPUMax reads cpu.max of version 2, "QUOTA PERIOD" in microseconds, as
// billionths of a CPU; "max" is no quota.
func parseCPUMax(data []byte) (Num, error) {
	if bytes.HasPrefix(data, []byte("max ")) {
		return Num{}, nil
	}
	quota, rest, ok := number(data)
	period, rest, ok2 := number(bytes.TrimLeft(rest, " "))
	if !ok || !ok2 || string(rest) != "\n" {
		return Num{}, fmt.Errorf("want a quota and a period, have %q", clip(string(data)))
	}
	return quotaOf(quota, period)
}

// quotaOf converts a quota to billionths of a CPU.
func quotaOf(quota, period uint64) (Num, error) {
	if period == 0 || quota > 1<<34 {
		return Num{}, errors.New("want a quota below five hours and a period above zero")
	}
	return Some(quota * 1e9 / period), nil
}

// parseMemoryLimit reads memory.max of version 2 or memory.limit_in_bytes of
// version 1, which has no word for no limit but all pages that an address
// can name.
func parseMemoryLimit(data []byte) (Num, error) {
	if string(data) == "max\n" {
		return Num{}, nil
	}
	limit, err := numberLine(data)
	if err != nil || limit.V >= 1<<63-1<<16 {
		return Num{}, err
	}
	return limit, nil
}

// parseMemoryEvents reads memory.events, or what version 1 has of it in
// memory.oom_control since Linux 4.13.
func parseMemoryEvents(data []byte) (MemoryEvents, error) {
	var e MemoryEvents
	err := eachPair(data, ' ', func(key []byte, value uint64) {
		switch string(key) {
		case "high":
			e.High = Some(value)
		case "max":
			e.Max = Some(value)
		case "oom":
			e.OOM = Some(value)
		case "oom_kill":
			e.OOMKill = Some(value)
		}
	})
	return e, err
}

// parsePressure reads the totals of cpu.pressure, memory.pressure or
// io.pressure, which are in microseconds.
func parsePressure(data []byte) (Pressure, error) {
	var p Pressure
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		at := bytes.LastIndex(line, []byte(" total="))
		if at < 0 {
			return Pressure{}, fmt.Errorf("want a total, have %q", clip(string(line)))
		}
		total, after, ok := number(line[at+len(" total="):])
		if !ok || len(after) > 0 {
			return Pressure{}, fmt.Errorf("want a total, have %q", clip(string(line)))
		}
		switch {
		case bytes.HasPrefix(line, []byte("some ")):
			p.Some = Some(total * 1000)
		case bytes.HasPrefix(line, []byte("full ")):
			p.Full = Some(total * 1000)
		}
	}
	return p, nil
}
