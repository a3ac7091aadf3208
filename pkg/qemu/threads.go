package qemu

import (
	"bytes"
	"cmp"
	"path"
	"slices"
	"strconv"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// mostThreads bounds the threads of a process that are followed one by one. KVM
// knows no more than 4096 virtual CPUs, and what a process calls its threads
// is its own affair.
const mostThreads = 4096 + 1024

// task is a thread with a lasting role.
type task struct {
	tid      int
	start    uint64
	role     Role
	part     *part // nil for roles that have none
	own      bool  // one of the process's threads, not a kernel thread beside it
	stat     *hostfs.File
	sched    *hostfs.File
	switches *hostfs.File
	ran      []byte // what sched said last, which changes when the thread runs
	spent    times
	last     Usage

	told  toldThread // by the programs in the kernel
	round uint64     // in which that was
}

// part is one virtual CPU or I/O thread. It adds up what its threads used, one
// after the other, so that a CPU that is unplugged and plugged in again goes on.
type part struct {
	role  Role
	index uint32 // of a virtual CPU
	name  string // of an I/O thread
	used  Usage
	alive int // threads that it has now
}

// grow adds what now has more than last had. What now does not know stays.
func (u *Usage) grow(last *Usage, now Usage) {
	grow(&u.CPU, &last.CPU, now.CPU)
	grow(&u.System, &last.System, now.System)
	grow(&u.Delay, &last.Delay, now.Delay)
	grow(&u.Voluntary, &last.Voluntary, now.Voluntary)
	grow(&u.Involuntary, &last.Involuntary, now.Involuntary)
}

func grow(sum, last *Num, now Num) {
	if now.Set {
		*sum = Some(sum.V + now.V - min(last.V, now.V))
		*last = Some(max(last.V, now.V))
	}
}

// readThreads adds what the known threads used since the last reading. It
// reports whether one of them has ended.
func (s *scanner) readThreads(e *emulator) (ended bool) {
	e.threads = slices.DeleteFunc(e.threads, func(t *task) bool {
		if s.count(e, t) {
			return false
		}
		t.close(s)
		ended = true
		return true
	})
	return ended
}

// count adds what a thread used; false means that it has ended.
func (s *scanner) count(e *emulator, t *task) bool {
	if e.heard && t.own {
		return s.hear(e, t)
	}
	return s.readThread(e, t)
}

// readThread reads one thread; false means that it has ended.
func (s *scanner) readThread(e *emulator, t *task) bool {
	data, err := s.readFile(t.sched)
	if err == nil && len(data) > 0 && bytes.Equal(data, t.ran) {
		return true // it has not run since
	}
	var used Usage
	if err == nil {
		used.Delay = counted(s, data, parseSchedstat)
		if t.ran = t.ran[:0]; used.Delay.Set { // a kernel that counts
			t.ran = append(t.ran, data...)
		}
	}
	if data, err = s.readFile(t.stat); err != nil || len(data) == 0 {
		return err != nil && !gone(err)
	}
	now, err := parseStat(data)
	if err != nil {
		s.unused++
		return true
	}
	if now.start != t.start {
		return false
	}
	used.CPU, used.System = Some(now.user+now.system), Some(now.system)
	if s.switches {
		if data, err := s.readFile(t.switches); err == nil {
			about := counted(s, data, parseStatus)
			used.Voluntary, used.Involuntary = about.voluntary, about.involuntary
		}
	}
	e.charge(t, used)
	return true
}

// charge adds what a thread used since the last reading to its role and part.
func (e *emulator) charge(t *task, now Usage) {
	t.spent.advance(times{now.CPU.V - now.System.V, now.System.V})
	now.CPU, now.System = t.spent.cpu()
	if t.part != nil {
		last := t.last
		t.part.used.grow(&last, now)
	}
	if t.own {
		last := t.last
		e.lasting.grow(&last, now)
	}
	e.roles[t.role].grow(&t.last, now)
}

// listThreads takes notice of threads that are new, and of their roles.
func (s *scanner) listThreads(e *emulator) error {
	tids, err := s.root.ReadNumbers(procPath(e.pid, "task"), s.tids[:0])
	s.tids = tids
	if err != nil {
		return err
	}
	slices.Sort(tids)
	e.settled = slices.DeleteFunc(e.settled, func(tid int) bool { return !has(tids, tid) })
	for _, tid := range tids {
		if _, followed := e.place(tid); !followed && !has(e.settled, tid) {
			s.meet(e, tid)
		}
	}
	return nil
}

// place finds a thread in the order of their numbers.
func (e *emulator) place(tid int) (int, bool) {
	return slices.BinarySearchFunc(e.threads, tid, func(t *task, tid int) int { return cmp.Compare(t.tid, tid) })
}

func has(sorted []int, number int) bool {
	_, found := slices.BinarySearch(sorted, number)
	return found
}

// meet looks at a thread for the first time. One without a name of its own is
// looked at again, as it may get one.
func (s *scanner) meet(e *emulator, tid int) {
	file := s.root.File(taskPath(e.pid, tid, "stat"))
	data, err := s.readFile(file)
	if err != nil || len(data) == 0 {
		return
	}
	now, err := parseStat(data)
	if err != nil {
		s.unused++
		s.closeFile(file)
		return
	}
	role, name := roleOf(now.comm, tid == e.pid)
	if role == RoleOther || len(e.threads) >= mostThreads {
		if !bytes.Equal(now.comm, e.comm) {
			at, _ := slices.BinarySearch(e.settled, tid)
			e.settled = slices.Insert(e.settled, at, tid)
		}
		s.closeFile(file)
		return
	}
	t := s.newTask(e, tid, role, name, now.start)
	t.stat = file // it is open
	s.follow(e, t)
}

// newTask returns a thread of a process with a lasting role.
func (s *scanner) newTask(e *emulator, tid int, role Role, name []byte, start uint64) *task {
	return &task{
		tid: tid, start: start, role: role, part: e.part(role, name), own: true,
		stat:     s.root.File(taskPath(e.pid, tid, "stat")),
		sched:    s.root.File(taskPath(e.pid, tid, "schedstat")),
		switches: s.root.File(taskPath(e.pid, tid, "status")),
	}
}

// followVhost reads a kernel thread that works for a process beside its own.
func (s *scanner) followVhost(e *emulator, tid int) {
	if _, followed := e.place(tid); followed || len(e.threads) >= mostThreads {
		return
	}
	file := s.root.File(procPath(tid, "stat"))
	data, err := s.readFile(file)
	if err != nil {
		return
	}
	now := counted(s, data, parseStat)
	if now.vhostOwner() != e.pid { // the number is another's by now
		s.closeFile(file)
		delete(s.processes, tid)
		return
	}
	s.follow(e, &task{
		tid: tid, start: now.start, role: RoleVhost, stat: file,
		sched: s.root.File(procPath(tid, "schedstat")), switches: s.root.File(procPath(tid, "status")),
	})
}

// follow reads a thread from now on, if it has not ended.
func (s *scanner) follow(e *emulator, t *task) {
	at, found := e.place(t.tid)
	if found {
		return
	}
	if t.part != nil {
		t.part.alive++
	}
	if !s.count(e, t) {
		t.close(s)
		return
	}
	e.threads = slices.Insert(e.threads, at, t)
}

func (t *task) closeFiles(s *scanner) {
	s.closeFile(t.stat)
	s.closeFile(t.sched)
	s.closeFile(t.switches)
}

// close gives back what a thread holds.
func (t *task) close(s *scanner) {
	t.closeFiles(s)
	if t.part != nil {
		t.part.alive--
	}
}

// part returns the virtual CPU or I/O thread that a thread's name names: nil
// when it names none.
func (e *emulator) part(role Role, name []byte) *part {
	p := part{role: role}
	switch role {
	case RoleVCPU:
		index, rest, ok := number(name)
		if !ok || len(rest) > 0 || index >= mostThreads {
			return nil
		}
		p.index = uint32(index)
	case RoleIOThread:
		p.name = string(name)
	default:
		return nil
	}
	at, found := slices.BinarySearchFunc(e.parts, &p, comparePart)
	switch {
	case found:
		return e.parts[at]
	case len(e.parts) >= mostThreads:
		return nil
	}
	e.parts = slices.Insert(e.parts, at, &p)
	return &p
}

func comparePart(a, b *part) int {
	return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.index, b.index), cmp.Compare(a.name, b.name))
}

func taskPath(pid, tid int, file string) string {
	return path.Join(procPath(pid, "task"), strconv.Itoa(tid), file)
}
