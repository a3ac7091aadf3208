package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	// tick is USER_HZ, which is 100 on every architecture that Go runs on.
	tick = 10 * time.Millisecond
	// rescan is how long a process is believed to be no QEMU: one that was
	// seen between fork and exec is found at the latest then.
	rescan = 10 * time.Second
)

// scanner reads the kernel class from /proc. It remembers what a process is,
// so that a scrape reads only those that matter.
type scanner struct {
	root *hostfs.Root
	now  func() time.Time

	boot   int64 // Unix seconds; 0 until read
	full   time.Time
	others map[int]bool // processes seen that are neither QEMU nor vhost
	vhosts map[int]int  // kernel thread to the process it works for
	qemus  map[int]*emulator
}

// emulator is one QEMU process.
type emulator struct {
	pid   int
	start uint64 // ticks since boot: another start is another process
	id    identity
	last  map[int]stat // threads at the last reading, by thread
	// roles are ticks by role. They only grow: what a thread used stays when
	// the thread ends.
	roles [len(Roles)]Num
	// lasting is the part of roles that the process itself is charged for.
	lasting uint64
}

func newScanner(root *hostfs.Root, now func() time.Time) *scanner {
	return &scanner{root: root, now: now, qemus: make(map[int]*emulator)}
}

// read returns one VM for each QEMU process.
func (s *scanner) read(ctx context.Context) (reading, error) {
	if s.boot == 0 {
		data, err := s.root.ReadFile("/proc/stat")
		if err != nil {
			return reading{}, err
		}
		if s.boot, err = parseBoot(data); err != nil {
			return reading{}, fmt.Errorf("parse /proc/stat: %w", err)
		}
	}
	if err := s.find(); err != nil {
		return reading{}, err
	}
	var r reading
	for pid, qemu := range s.qemus {
		if ctx.Err() != nil {
			return reading{}, ctx.Err()
		}
		vm, err := s.readProcess(pid, qemu)
		switch {
		case gone(err):
			delete(s.qemus, pid)
		case err != nil:
			return reading{}, err
		case vm != nil:
			r.vms = append(r.vms, *vm)
		}
	}
	// The oldest first, so that it is the one kept of two that look alike.
	slices.SortFunc(r.vms, func(a, b VM) int {
		return cmp.Or(a.Process.Start.Compare(b.Process.Start), cmp.Compare(a.Process.PID, b.Process.PID))
	})
	return r, nil
}

// find brings the tables of processes up to date.
func (s *scanner) find() error {
	names, err := s.root.ReadDir("/proc")
	if err != nil {
		return err
	}
	before := s.others
	if now := s.now(); now.Sub(s.full) >= rescan {
		s.full, before = now, nil
	}
	others := make(map[int]bool, len(names))
	vhosts := make(map[int]int)
	qemus := make(map[int]*emulator)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		switch {
		case err != nil:
			continue
		case before[pid]:
			others[pid] = true
			continue
		}
		comm, err := s.root.ReadString(procPath(pid, "comm"))
		if err != nil {
			continue // gone, or not ours to see
		}
		if owner, found := vhostOwner(comm); found {
			vhosts[pid] = owner
		} else if isQEMU(comm) || s.runsQEMU(pid) {
			qemus[pid] = s.qemus[pid]
		} else {
			others[pid] = true
		}
	}
	s.others, s.vhosts, s.qemus = others, vhosts, qemus
	return nil
}

// runsQEMU looks at the program of a process, which may have renamed itself.
func (s *scanner) runsQEMU(pid int) bool {
	link, err := s.root.ReadLink(procPath(pid, "exe"))
	return err == nil && isQEMU(programName(link))
}

// readProcess reads one QEMU process; nil without an error is a process that
// runs no machine.
func (s *scanner) readProcess(pid int, known *emulator) (*VM, error) {
	total, err := s.readStat(procPath(pid, "stat"))
	if err != nil {
		return nil, err
	}
	if total.state == 'Z' || total.state == 'X' {
		return nil, nil
	}
	if known == nil || known.start != total.start {
		data, err := s.root.ReadFile(procPath(pid, "cmdline"))
		if err != nil {
			return nil, err
		}
		known = &emulator{pid: pid, start: total.start, id: parseCmdline(data)}
		s.qemus[pid] = known
	}
	if !known.id.machine {
		return nil, nil
	}
	status, err := s.root.ReadFile(procPath(pid, "status"))
	if err != nil {
		return nil, err
	}
	resident, err := parseStatus(status)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", procPath(pid, "status"), err)
	}
	if err := s.readRoles(known); err != nil {
		return nil, err
	}
	vm := &VM{Name: known.id.name, UUID: known.id.uuid, Source: SourceProc, Process: &Process{
		PID: pid, Start: s.startTime(known.start), CPU: known.roles, Resident: resident,
	}}
	if vm.Name == "" {
		vm.Name = "pid:" + strconv.Itoa(pid)
	}
	return vm, nil
}

// startTime converts ticks since boot; a wild number becomes a wild time.
func (s *scanner) startTime(ticks uint64) time.Time {
	return time.Unix(s.boot+int64(ticks/100), int64(ticks%100)*int64(tick))
}

// readRoles adds what threads of lasting roles used since the last reading.
// The rest of what the process used, by ended threads too, is RoleOther.
func (s *scanner) readRoles(qemu *emulator) error {
	tids, err := s.root.ReadDir(procPath(qemu.pid, "task"))
	if err != nil {
		return err
	}
	threads := make(map[int]stat, len(tids))
	for _, name := range tids {
		tid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		now, err := s.readStat(path.Join(procPath(qemu.pid, "task"), name, "stat"))
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if role := roleOf(now.comm, tid == qemu.pid); role != RoleOther {
			qemu.lasting += qemu.charge(threads, tid, now, role)
		}
	}
	for tid, owner := range s.vhosts {
		if owner != qemu.pid {
			continue
		}
		if now, err := s.readStat(procPath(tid, "stat")); err == nil {
			qemu.charge(threads, tid, now, RoleVhost)
		}
	}
	qemu.last = threads
	total, err := s.readStat(procPath(qemu.pid, "stat"))
	if err != nil {
		return err
	}
	other := &qemu.roles[RoleOther]
	*other = Some(max(other.V, total.ticks-min(qemu.lasting, total.ticks)))
	return nil
}

// charge adds what a thread used since the last reading to its role.
func (e *emulator) charge(threads map[int]stat, tid int, now stat, role Role) uint64 {
	used := now.ticks
	if last, found := e.last[tid]; found && last.start == now.start {
		used -= min(last.ticks, used)
	}
	threads[tid] = now
	e.roles[role] = Some(e.roles[role].V + used)
	return used
}

func (s *scanner) readStat(name string) (stat, error) {
	data, err := s.root.ReadFile(name)
	if err != nil {
		return stat{}, err
	}
	parsed, err := parseStat(data)
	if err != nil {
		return stat{}, fmt.Errorf("parse %s: %w", name, err)
	}
	return parsed, nil
}

// gone reports whether a process ended while it was being read.
func gone(err error) bool { return hostfs.Absent(err) || errors.Is(err, unix.ESRCH) }

func procPath(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }
