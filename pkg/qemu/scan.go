package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	// threadDetail is the group of statistics, off by default, that costs a
	// file more of every thread: its context switches.
	threadDetail = "thread_detail"
	// tick is USER_HZ, which is 100 on every architecture that Go runs on.
	tick = 10 * time.Millisecond
	// rescan is how long a process is believed to be no QEMU after the first
	// look: one that was seen between fork and exec is found at the latest then.
	// The time doubles with each further look, up to mostRescan.
	rescan, mostRescan = 10 * time.Second, 5 * time.Minute
	// mostOfPod bounds the QEMUs of one pod, which has a machine or two: whoever is
	// in a pod may call any process that.
	mostOfPod = 8
)

// scanner reads the kernel class. It remembers what a process is and keeps
// open what it reads at every scrape, so that a scrape reads only counters.
type scanner struct {
	root     *hostfs.Root
	now      func() time.Time
	log      *slog.Logger
	vfs      VFReader // nil: nobody can tell
	switches bool     // threadDetail is on

	boot       int64  // Unix seconds; 0 until read
	here       string // control group that this process sits in; see groupHere
	round      uint64
	processes  map[int]process
	pods       map[string]int // QEMUs by the pod that they run in
	qemus      []*emulator    // the oldest first
	machines   []*emulator    // those of them that this reading is about
	namespaces map[string]*namespace
	groups     map[groupKey]int // machines by their topmost control groups

	open, limit int // descriptors that are kept, and may be
	unused      int // lines that mean nothing to us, of this reading
	buf         []byte
	pids, tids  []int

	programs Programs // nil: there are none
	load     *hostfs.File
	told     bool // all threads of machines were told of in this round
	measured []ProcessID
	byPID    map[int]*Process
}

// process is what the scanner thinks that a process is.
type process struct {
	round uint64    // in which it was there last
	qemu  *emulator // nil: it is none
	vhost int       // of a kernel thread: the process that it works for; else 0

	// Of one that is neither: when to look again, and how long after the last look.
	due  time.Time
	rest time.Duration
}

// settled reports whether there is no need to look at a process again.
func (p *process) settled(now time.Time) bool {
	return p.qemu != nil || p.vhost != 0 || now.Before(p.due)
}

// emulator is one QEMU process.
type emulator struct {
	pid   int
	start uint64 // ticks since boot: another start is another process
	pod   string // UID of the pod that it runs in, which never changes; empty: none
	comm  []byte // of its main thread, and of those that it gave no name
	id    *identity

	stat, status, io *hostfs.File

	told      told // by the programs in the kernel
	strangers []stranger
	heard     bool // of this round: told is what is true
	memory    keptMemory

	// What it used, so that no counter goes back where what was told and what
	// /proc says differ a little.
	spent        times
	minor, major Num
	total        ProcessIO

	count   uint64  // of its threads, when they were listed
	threads []*task // those with a lasting role, by number
	settled []int   // numbers of the others that have a name, ascending
	parts   []*part // by role, number and name
	// roles add up what threads used; it stays when a thread ends. lasting is
	// the part of it that the process itself is charged for.
	roles   [len(Roles)]Usage
	lasting Usage
	other   times // what no lasting role used

	belongings belongings
	examined   time.Time // when they were looked at last
	due        time.Time // when to look at them again at the latest
	calm       int       // how many looks at them found what the one before had
	cgroup     cgroup
}

func newScanner(opt Options) *scanner {
	s := &scanner{
		root: opt.Root, now: opt.Now, log: opt.Log, vfs: opt.VFs, switches: opt.Groups[threadDetail], programs: opt.Programs, load: opt.Root.File("/proc/loadavg"),
		byPID:     make(map[int]*Process),
		processes: make(map[int]process), pods: make(map[string]int), namespaces: make(map[string]*namespace), groups: make(map[groupKey]int),
	}
	// The other half is for connections, sockets and whatever else.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		s.limit = int(min(limit.Cur/2, 1<<20))
	}
	return s
}

// read returns one VM for each QEMU process, in memory that nobody else uses.
func (s *scanner) read(ctx context.Context, memory slab) (reading, error) {
	if s.boot == 0 {
		data, err := s.root.ReadFile("/proc/stat")
		if err != nil {
			return reading{}, err
		}
		if s.boot, err = parseBoot(data); err != nil {
			return reading{}, fmt.Errorf("parse /proc/stat: %w", err)
		}
		if s.here, err = groupHere(s.root); err != nil {
			s.log.Warn("the control groups of VMs cannot be told", "err", err)
		}
	}
	s.unused = 0
	careful := &careful{ctx: ctx, root: s.root}
	if err := s.find(careful); err != nil {
		return reading{}, err
	}
	if ctx.Err() != nil { // the programs may be another's by now
		return reading{}, ctx.Err()
	}
	s.readTold()
	out := memory.empty(len(s.qemus))
	s.machines = s.machines[:0]
	for _, qemu := range s.qemus {
		if ctx.Err() != nil {
			return reading{}, ctx.Err()
		}
		if machine := s.readProcess(careful, qemu, &out); machine != nil {
			s.machines = append(s.machines, machine)
		}
	}
	if ctx.Err() != nil {
		return reading{}, ctx.Err()
	}
	// Now it is known which of them share a group.
	for i, machine := range s.machines {
		s.readCgroup(machine, &out.processes[i].Cgroup)
	}
	s.readVFs(careful, out.vms)
	s.readRunQueue(out.vms)
	for name, ns := range s.namespaces {
		if ns.round != s.round {
			delete(s.namespaces, name)
		}
	}
	return reading{vms: out.vms, unused: s.unused, slab: out}, nil
}

// find brings the table of processes up to date.
func (s *scanner) find(careful *careful) (err error) {
	if s.pids, err = s.root.ReadNumbers("/proc", s.pids[:0]); err != nil {
		return err
	}
	s.round++
	now := s.now()
	for _, pid := range s.pids {
		known, found := s.processes[pid]
		if !found || !known.settled(now) {
			rest := min(max(2*known.rest, rescan), mostRescan)
			if known, found = s.identify(careful, pid); !found {
				continue
			}
			known.due, known.rest = now.Add(rest), rest
		}
		known.round = s.round
		s.processes[pid] = known
	}
	s.qemus = s.qemus[:0]
	for pid, known := range s.processes {
		switch {
		case known.round != s.round:
			s.forget(pid)
		case known.qemu != nil:
			s.qemus = append(s.qemus, known.qemu)
		}
	}
	slices.SortFunc(s.qemus, func(a, b *emulator) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.pid, b.pid)) })
	for tid, known := range s.processes {
		if owner := s.processes[known.vhost].qemu; owner != nil {
			s.followVhost(owner, tid)
		}
	}
	return nil
}

// identify finds out what a process is; false means that it has gone, or cannot
// be told now.
func (s *scanner) identify(careful *careful, pid int) (process, bool) {
	comm, err := s.root.ReadString(procPath(pid, "comm"))
	if err != nil {
		return process{}, false
	}
	if strings.HasPrefix(comm, "vhost-") {
		data, err := s.root.ReadFile(procPath(pid, "stat"))
		if err != nil {
			return process{}, false
		}
		if now := counted(s, data, parseStat); now.vhostOwner() != 0 {
			return process{vhost: now.vhostOwner()}, true
		}
	}
	if !isQEMU(comm) && !s.runsQEMU(pid) {
		return process{}, true
	}
	pod, err := s.podOf(careful, pid)
	if err != nil {
		return process{}, false
	}
	if pod != "" && s.pods[pod] >= mostOfPod {
		return process{}, true // until another one has ended
	}
	e := &emulator{
		pid: pid, pod: pod, stat: s.root.File(procPath(pid, "stat")), status: s.root.File(procPath(pid, "status")), io: s.root.File(procPath(pid, "io")),
	}
	now, err := s.readStat(e)
	if err != nil {
		return process{}, false
	}
	e.start, e.comm = now.start, slices.Clone(now.comm)
	s.pods[pod]++
	return process{qemu: e}, true
}

// podOf returns the UID of the pod that a process runs in, but of none that holds
// this whole host.
func (s *scanner) podOf(careful *careful, pid int) (string, error) {
	read := func(pid int) (string, error) {
		root, name := s.root, procPath(pid, "cgroup")
		return take(careful, patience, "read", name, func() (string, error) {
			data, _ := root.ReadFile(name) // there is none in a kernel without control groups
			return parsePodCgroup(data), nil
		})
	}
	pod, err := read(pid)
	if err != nil || pod == "" {
		return "", err
	}
	outer, err := read(1)
	if err != nil || pod == outer {
		return "", err
	}
	return pod, nil
}

// runsQEMU looks at the program of a process, which may have renamed itself.
func (s *scanner) runsQEMU(pid int) bool {
	link, err := s.root.ReadLink(procPath(pid, "exe"))
	return err == nil && isQEMU(programName(link))
}

// forget gives back what is kept of a process.
func (s *scanner) forget(pid int) {
	if e := s.processes[pid].qemu; e != nil {
		if s.pods[e.pod]--; s.pods[e.pod] == 0 {
			delete(s.pods, e.pod)
		}
		for _, t := range e.threads {
			t.close(s)
		}
		for _, file := range []*hostfs.File{e.stat, e.status, e.io} {
			s.closeFile(file)
		}
		s.leaveCgroup(e)
	}
	delete(s.processes, pid)
}

// close gives back everything.
func (s *scanner) close() {
	for pid := range s.processes {
		s.forget(pid)
	}
	s.closeFile(s.load)
}

// readProcess appends the machine of a QEMU process and returns the process,
// another one if the number is taken again. It returns nil when the process
// has ended or runs no machine.
func (s *scanner) readProcess(careful *careful, e *emulator, out *slab) *emulator {
	now, err := s.readTimes(e)
	if errors.Is(err, errAnother) || gone(err) {
		// The number may belong to another process by now, a QEMU too.
		s.forget(e.pid)
		known, found := s.identify(careful, e.pid)
		if !found || known.qemu == nil {
			return nil
		}
		known.round = s.round
		s.processes[e.pid], e = known, known.qemu
		now, err = s.readTimes(e)
	}
	if err != nil || now.state == 'Z' || now.state == 'X' || !s.examine(careful, e) {
		return nil
	}
	vm, p := out.add()
	vm.Name, vm.UUID, vm.Pod, vm.Source, vm.Process = e.id.name, e.id.uuid, e.pod, SourceProc, p
	if vm.Name == "" {
		vm.Name = "pid:" + strconv.Itoa(e.pid)
	}
	now.count(vm)
	p.PID, p.Start, p.Threads = e.pid, s.startTime(e.start), e.roles
	p.MinorFaults, p.MajorFaults = e.minor.rise(Some(now.minor)), e.major.rise(Some(now.major))
	s.readResident(e, p)
	p.IO = s.readIO(e)
	out.addParts(vm, e.parts)
	out.addInterfaces(vm, e, s)
	out.addVFs(vm, e.belongings.vfs)
	return e
}

// errAnother says that a process number belongs to another process by now.
var errAnother = errors.New("another process has this number")

// readTimes reads what a process and its threads used.
func (s *scanner) readTimes(e *emulator) (stat, error) {
	e.heard = s.heard(e)
	// The threads first: what they used must not exceed the process's.
	ended := s.readThreads(e)
	now, err := s.readTotal(e)
	if err != nil {
		return now, err
	}
	if now.start != e.start {
		return now, errAnother
	}
	switch {
	case e.heard:
		s.meetStrangers(e)
		e.count, e.settled = 0, e.settled[:0] // to be listed when nobody tells any more
	case ended || now.threads != e.count || !s.now().Before(e.due):
		if err := s.listThreads(e); err != nil && gone(err) {
			return now, err
		}
		if now, err = s.readTotal(e); err != nil {
			return now, err
		}
		e.count = now.threads
	}
	e.spent.advance(times{now.user, now.system})
	now.user, now.system = e.spent.user, e.spent.system
	// What no other role used.
	used := now.user + now.system - min(e.lasting.CPU.V, now.user+now.system)
	system := min(now.system-min(e.lasting.System.V, now.system), used)
	e.other.advance(times{used - system, system})
	other := &e.roles[RoleOther]
	other.CPU, other.System = e.other.cpu()
	return now, nil
}

// readTotal returns what was told of a process, or reads it.
func (s *scanner) readTotal(e *emulator) (stat, error) {
	if e.heard {
		s.closeFile(e.stat)
		return e.told.stat(), nil
	}
	return s.readStat(e)
}

// startTime converts ticks since boot; a wild number becomes a wild time.
func (s *scanner) startTime(ticks uint64) time.Time {
	return time.Unix(s.boot+int64(ticks/100), int64(ticks%100)*int64(tick))
}

// readStat reads the process's own /proc/PID/stat.
func (s *scanner) readStat(e *emulator) (stat, error) {
	data, err := s.readFile(e.stat)
	if err != nil {
		return stat{}, err
	}
	if len(data) == 0 {
		return stat{}, unix.ESRCH
	}
	now, err := parseStat(data)
	if err != nil {
		s.unused++
		return stat{}, fmt.Errorf("parse %s: %w", e.stat.Name(), err)
	}
	return now, nil
}

// readFile reads a file into memory that the next reading uses again, and
// keeps it open if it may.
func (s *scanner) readFile(file *hostfs.File) ([]byte, error) {
	before := file.Open()
	data, err := file.Read(s.buf)
	s.buf = data[:0]
	switch {
	case before && !file.Open():
		s.open--
	case !before && file.Open() && s.open >= s.limit:
		file.Close()
	case !before && file.Open():
		s.open++
	}
	return data, err
}

func (s *scanner) closeFile(file *hostfs.File) {
	if file != nil && file.Open() {
		file.Close()
		s.open--
	}
}

// counted parses a file of values. One that is not as it should be costs its
// values only, and is counted.
func counted[T any](s *scanner, data []byte, parse func([]byte) (T, error)) T {
	value, err := parse(data)
	if err != nil {
		s.unused++
	}
	return value
}

// gone reports whether a process ended while it was being read.
func gone(err error) bool { return hostfs.Absent(err) || errors.Is(err, unix.ESRCH) }

func procPath(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }
