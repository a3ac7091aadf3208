package qemu

import (
	"bytes"
	"slices"
	"time"
)

// Thread is a thread of a machine's process, as the kernel's struct
// task_struct has it (include/linux/sched.h).
type Thread struct {
	PID, TID    int
	Start       uint64 // nanoseconds since boot
	Delay       uint64 // nanoseconds that it could run but had no physical CPU
	Waits       uint64 // how often it got one; 0: it never ran, or the kernel does not count
	Voluntary   uint64 // context switches
	Involuntary uint64
	Behind      bool     // Used lacks what it used lately
	Groups      uint64   // another number when it is in other control groups
	Name        [16]byte // up to a NUL byte
	Used        Account

	Group *Group // its process, if it is the main thread; else nil
}

// Account is what a thread used, or those threads of a process that have ended.
type Account struct {
	Runtime uint64 // nanoseconds on a CPU
	// User and System are nanoseconds by the ticks that found it there: their
	// ratio splits Runtime. ToldUser and ToldSystem are the split that was told
	// last, to whoever read /proc.
	User, System         uint64
	ToldUser, ToldSystem uint64

	MinorFaults, MajorFaults uint64

	ReadChars, WriteChars uint64 // as in ProcessIO
	ReadCalls, WriteCalls uint64
	ReadBytes, WriteBytes uint64
	CancelledWrites       uint64
}

// Group is what the kernel keeps of all threads of a process together: struct
// signal_struct (include/linux/sched/signal.h) and struct mm_struct.
type Group struct {
	Now     uint64 // when it was read, nanoseconds since boot
	Threads uint64 // how many there are
	Torn    bool   // what is told of it does not fit together
	// Pages are resident ones of files, anonymous ones, those in swap space, and
	// resident shared ones; HugePages are pages of the usual size too.
	Pages     [4]int64
	HugePages uint64
	// Files is another number when the process has opened or closed a file, or
	// has another in its place; 0: nobody can tell.
	Files uint64
	Ended Account // of threads that have ended
}

// add adds what another used. The split of CPU time cannot be added up.
func (a *Account) add(b *Account) {
	a.Runtime += b.Runtime
	a.User += b.User
	a.System += b.System
	a.MinorFaults += b.MinorFaults
	a.MajorFaults += b.MajorFaults
	a.ReadChars += b.ReadChars
	a.WriteChars += b.WriteChars
	a.ReadCalls += b.ReadCalls
	a.WriteCalls += b.WriteCalls
	a.ReadBytes += b.ReadBytes
	a.WriteBytes += b.WriteBytes
	a.CancelledWrites += b.CancelledWrites
}

func (a *Account) io() ProcessIO {
	return ProcessIO{
		ReadBytes: Some(a.ReadBytes), WriteBytes: Some(a.WriteBytes), CancelledWrites: Some(a.CancelledWrites),
		ReadChars: Some(a.ReadChars), WriteChars: Some(a.WriteChars), ReadCalls: Some(a.ReadCalls), WriteCalls: Some(a.WriteCalls),
	}
}

// told is what the programs in the kernel told of a process in one round.
type told struct {
	round   uint64
	threads uint64  // of which was told
	latest  uint64  // start of the youngest of them
	behind  bool    // one of them is
	used    Account // by all of them and by those that have ended
	groups  uint64  // another number when those with a lasting role have others
	main    bool    // the main thread was told of, from which is:
	start   uint64
	group   Group
}

// toldThread is what was told of a thread with a lasting role.
type toldThread struct {
	start, delay, waits    uint64
	voluntary, involuntary uint64
	used                   times
}

// stranger is such a thread, if it is not followed yet.
type stranger struct {
	tid  int
	role Role
	name []byte // what is left of its name
	told toldThread
}

const (
	// passed is how many threads of the host the programs in the kernel pass in
	// the time that a file of /proc takes: 16 of 0.25 µs.
	passed = 16
	// fewThreads take about a millisecond, which is worth no thought.
	fewThreads = 4096
)

// worthwhile reports whether it costs less to pass all threads of the host than
// to read the files of machines. What was done in the round before is done
// again unless the other is twice as good: both keep something open.
func (s *scanner) worthwhile() bool {
	files := uint64(0)
	for _, e := range s.qemus {
		files += 3 + uint64(len(e.threads))
	}
	if s.told {
		files *= 2
	}
	data, err := s.readFile(s.load)
	return err != nil || parseThreads(data) <= max(fewThreads, passed*files)
}

// parseThreads reads from /proc/loadavg how many threads the host has
// (proc(5)): "0.20 0.18 0.12 1/80 11206" has 80.
func parseThreads(data []byte) uint64 {
	_, rest, _ := bytes.Cut(data, []byte("/"))
	threads, _, _ := number(rest)
	return threads
}

// readTold asks the programs in the kernel for all machines at once.
func (s *scanner) readTold() {
	if s.programs == nil || len(s.measure()) == 0 || !s.worthwhile() {
		s.told = false
		return
	}
	var last *emulator
	s.told = s.programs.Threads(s.measured, func(t *Thread) {
		if last == nil || last.pid != t.PID {
			last = s.processes[t.PID].qemu
		}
		if last != nil {
			last.tell(t, s.round)
		}
	})
}

// tell takes in what was told of one of the process's threads.
func (e *emulator) tell(t *Thread, round uint64) {
	if e.told.round != round {
		e.told, e.strangers = told{round: round}, e.strangers[:0]
	}
	now := &e.told
	now.threads++
	now.latest = max(now.latest, t.Start)
	now.behind = now.behind || t.Behind
	now.used.add(&t.Used)
	if t.Group != nil {
		now.main, now.start, now.group = true, t.Start, *t.Group
		now.used.add(&t.Group.Ended)
		now.used.ToldUser, now.used.ToldSystem = t.Group.Ended.ToldUser, t.Group.Ended.ToldSystem
	}
	at, followed := e.place(t.TID)
	followed = followed && e.threads[at].start == ticksOf(t.Start)
	role, name := RoleOther, []byte(nil)
	if !followed {
		comm, _, _ := bytes.Cut(t.Name[:], []byte{0})
		if role, name = roleOf(comm, t.TID == t.PID); role == RoleOther || len(e.threads)+len(e.strangers) >= mostThreads {
			return
		}
	}
	now.groups = mix(now.groups, uint64(t.TID), t.Groups)
	about := toldThread{t.Start, t.Delay, t.Waits, t.Voluntary, t.Involuntary, t.Used.times()}
	if followed {
		e.threads[at].told, e.threads[at].round = about, round
	} else {
		e.strangers = append(e.strangers, stranger{t.TID, role, slices.Clone(name), about})
	}
}

// mix makes one number of several; others make another.
func mix(sum uint64, numbers ...uint64) uint64 {
	for _, n := range numbers {
		sum = (sum ^ n) * 0x9e3779b97f4a7c15
	}
	return sum
}

// meetStrangers follows threads with a lasting role from now on.
func (s *scanner) meetStrangers(e *emulator) {
	for i := range e.strangers {
		stranger := &e.strangers[i]
		t := s.newTask(e, stranger.tid, stranger.role, stranger.name, ticksOf(stranger.told.start))
		t.told, t.round = stranger.told, s.round
		s.follow(e, t)
	}
}

// things is a number that is another when a process has other open files, or
// threads with a lasting role, or these are in other control groups; 0: nobody
// has told.
func (e *emulator) things() uint64 {
	if !e.heard || e.told.group.Files == 0 {
		return 0
	}
	return mix(e.told.groups, e.told.group.Files) | 1
}

// whole reports whether this is the process as it was in one moment. Threads
// that came or went meanwhile might be missing from it, or be there twice.
func (t *told) whole() bool {
	return t.main && !t.group.Torn && !t.behind && t.threads == t.group.Threads && t.latest <= t.group.Now
}

// stat returns what /proc/PID/stat would say, but for the name and the state.
func (t *told) stat() stat {
	spent, pages := t.used.times(), t.group.Pages
	return stat{
		minor: t.used.MinorFaults, major: t.used.MajorFaults, user: spent.user, system: spent.system,
		threads: t.group.Threads, start: ticksOf(t.start), resident: uint64(max(pages[0], 0) + max(pages[1], 0) + max(pages[3], 0)),
	}
}

// ticksOf converts nanoseconds since boot as /proc/PID/stat tells them.
func ticksOf(ns uint64) uint64 { return ns / uint64(tick) }

// heard reports whether all that was told of a process in this round is true
// of it. If not, /proc is.
func (s *scanner) heard(e *emulator) bool {
	return s.told && e.told.round == s.round && e.told.whole() && ticksOf(e.told.start) == e.start
}

// hear charges what was told of a thread; false means that it has ended.
func (s *scanner) hear(e *emulator, t *task) bool {
	if t.round != s.round || ticksOf(t.told.start) != t.start {
		return false
	}
	t.closeFiles(s)
	var used Usage
	used.CPU, used.System = t.told.used.cpu()
	if t.told.waits > 0 {
		used.Delay = Some(t.told.delay)
	}
	if s.switches {
		used.Voluntary, used.Involuntary = Some(t.told.voluntary), Some(t.told.involuntary)
	}
	e.charge(t, used)
	return true
}

// mostStale is how long the memory of a process is believed to be what it was
// while nothing shows that it changed; machines are read in turn, so that it
// may be half as long again.
const mostStale = 30 * time.Second

// keptMemory is what /proc/PID/status said last of a process's memory.
type keptMemory struct {
	resident Num
	split    ProcessMemory
	signs    memorySigns
	due      time.Time // when to read it again at the latest; zero: at once
}

// memorySigns change with the memory of a process.
type memorySigns struct {
	pages              [4]int64
	huge, minor, major uint64
}

// readResident reads how much memory a process has, unless nothing shows that
// this has changed.
func (s *scanner) readResident(e *emulator, p *Process) {
	m, now := &e.memory, s.now()
	signs := memorySigns{e.told.group.Pages, e.told.group.HugePages, e.told.used.MinorFaults, e.told.used.MajorFaults}
	if e.heard && signs == m.signs && now.Before(m.due) {
		p.Resident, p.Memory = m.resident, m.split
		return
	}
	m.due = time.Time{}
	data, err := s.readFile(e.status)
	if err != nil {
		return
	}
	p.Resident, p.Memory = memoryOf(counted(s, data, parseStatus), e.id.shared)
	if e.heard && p.Resident.Set {
		*m = keptMemory{p.Resident, p.Memory, signs, now.Add(mostStale + mostStale/2*time.Duration(e.pid%10)/10)}
	}
}

// readIO reads what a process read and wrote.
func (s *scanner) readIO(e *emulator) ProcessIO {
	if e.heard {
		s.closeFile(e.io)
		return e.total.rise(e.told.used.io())
	}
	data, err := s.readFile(e.io)
	if err != nil {
		return ProcessIO{}
	}
	return e.total.rise(counted(s, data, parseIO))
}
