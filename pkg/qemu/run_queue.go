package qemu

import "time"

// ProcessID is a process for good: its number alone may become another's.
type ProcessID struct {
	PID   int
	Start time.Time
}

// RunQueue measures how long the virtual CPUs of machines wait for a physical
// one, each time they wait.
type RunQueue interface {
	// Delays calls each for those of the processes of which a wait was seen.
	// Processes that are not listed any more are forgotten.
	Delays(of []ProcessID, each func(pid int, delays *Histogram))
}

// readRunQueue gives machines their run-queue delays. All processes that are
// known to be machines are asked for, also one that could not be read now: its
// counters go on.
func (s *scanner) readRunQueue(vms []VM) {
	if s.runQueue == nil {
		return
	}
	clear(s.byPID)
	for i := range vms {
		s.byPID[vms[i].Process.PID] = vms[i].Process
	}
	s.measured = s.measured[:0]
	for _, e := range s.qemus {
		if e.id == nil || !e.id.machine {
			continue
		}
		id := ProcessID{PID: e.pid, Start: s.startTime(e.start)}
		s.measured = append(s.measured, id)
		if p := s.byPID[id.PID]; p != nil && !p.Start.Equal(id.Start) {
			delete(s.byPID, id.PID) // it has taken the number since
		}
	}
	s.runQueue.Delays(s.measured, func(pid int, delays *Histogram) {
		if p := s.byPID[pid]; p != nil {
			p.RunQueueDelay = *delays
		}
	})
}
