package bpf

import (
	"slices"
	"time"
)

// Process is the QEMU of a VM. Its number alone may become another's.
type Process struct {
	PID   int // in the initial namespace, as the kernel's tgid
	Start time.Time
}

// slots are the places that processes have in the tables of histograms.
type slots struct {
	of    map[int]*place // by PID
	free  []int          // the next one last
	round uint64
}

type place struct {
	slot  int
	start time.Time
	round uint64 // when the process was last wanted
}

func newSlots(count int) *slots {
	s := &slots{of: make(map[int]*place, count), free: make([]int, count)}
	for i := range s.free {
		s.free[i] = count - 1 - i
	}
	return s
}

// divide says which of the wanted processes have no slot yet, and which
// processes have one and are not wanted any more. It allocates nothing when
// there are neither.
func (s *slots) divide(wanted []Process) (fresh []Process, gone []int) {
	s.round++
	for _, p := range wanted {
		if at := s.of[p.PID]; at != nil && at.start.Equal(p.Start) {
			at.round = s.round
		} else {
			fresh = append(fresh, p)
		}
	}
	for pid, at := range s.of {
		if at.round != s.round {
			gone = append(gone, pid)
		}
	}
	slices.Sort(gone)
	return fresh, gone
}

// take gives a process a slot, if one is left.
func (s *slots) take(p Process) (slot int, ok bool) {
	if len(s.free) == 0 {
		return 0, false
	}
	last := len(s.free) - 1
	slot, s.free = s.free[last], s.free[:last]
	s.of[p.PID] = &place{slot: slot, start: p.Start, round: s.round}
	return slot, true
}

// give takes a process's slot back.
func (s *slots) give(pid int) {
	s.free = append(s.free, s.of[pid].slot)
	delete(s.of, pid)
}
