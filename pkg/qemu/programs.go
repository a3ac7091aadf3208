package qemu

import "time"

// ProcessID is a process for good: its number alone may become another's.
type ProcessID struct {
	PID   int
	Start time.Time
}

// Programs in the kernel tell of processes what /proc does not, or not as
// cheaply. Those that are not listed any more are forgotten.
type Programs interface {
	// Delays calls each for those of the processes of which a virtual CPU was
	// seen to wait for a physical one.
	Delays(of []ProcessID, each func(pid int, delays *Histogram))
	// Threads calls each for the threads of those processes that it knows, and
	// reports whether that was all of them. A thread is the callee's for the
	// length of the call.
	Threads(of []ProcessID, each func(*Thread)) (all bool)
}

// readRunQueue gives machines their run-queue delays. All processes that are
// known to be machines are asked for, also one that could not be read now: its
// counters go on.
func (s *scanner) readRunQueue(vms []VM) {
	if s.programs == nil {
		return
	}
	clear(s.byPID)
	for i := range vms {
		s.byPID[vms[i].Process.PID] = vms[i].Process
	}
	for _, id := range s.measure() {
		if p := s.byPID[id.PID]; p != nil && !p.Start.Equal(id.Start) {
			delete(s.byPID, id.PID) // it has taken the number since
		}
	}
	s.programs.Delays(s.measured, func(pid int, delays *Histogram) {
		if p := s.byPID[pid]; p != nil {
			p.RunQueueDelay = *delays
		}
	})
}

// measure lists the processes that are known to be machines.
func (s *scanner) measure() []ProcessID {
	s.measured = s.measured[:0]
	for _, e := range s.qemus {
		if e.id != nil && e.id.machine {
			s.measured = append(s.measured, ProcessID{PID: e.pid, Start: s.startTime(e.start)})
		}
	}
	return s.measured
}
