package bpf

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestSlots lets processes come, go and change places at random.
func TestSlots(t *testing.T) {
	const count, pids = 5, 8
	random := rand.New(rand.NewPCG(1, 2))
	s := newSlots(count)
	have := make(map[int]Process)
	for range 2000 {
		wanted := make(map[int]Process)
		var list []Process
		for pid := range pids {
			if random.IntN(2) == 0 {
				wanted[pid] = Process{PID: pid, Start: time.Unix(random.Int64N(2), 0)}
				list = append(list, wanted[pid])
			}
		}
		fresh, gone := s.divide(list)
		for _, pid := range gone {
			if wanted[pid] == have[pid] {
				t.Fatalf("process %d is wanted and was given up", pid)
			}
			s.give(pid)
			delete(have, pid)
		}
		for pid, p := range have {
			if wanted[pid] != p {
				t.Fatalf("process %v is not wanted and was kept", p)
			}
		}
		for _, p := range fresh {
			if _, ok := have[p.PID]; ok {
				t.Fatalf("process %d has a slot and is to take one", p.PID)
			}
			slot, ok := s.take(p)
			if ok != (len(have) < count) || slot < 0 || slot >= count {
				t.Fatalf("with %d of %d slots taken: slot %d, %v", len(have), count, slot, ok)
			}
			if ok {
				have[p.PID] = p
			}
		}
		owners := make(map[int]int)
		for pid, at := range s.of {
			if other, taken := owners[at.slot]; taken {
				t.Fatalf("processes %d and %d share slot %d", pid, other, at.slot)
			}
			owners[at.slot] = pid
		}
		if len(owners) != len(have) || len(s.free) != count-len(have) {
			t.Fatalf("%d slots are taken and %d free, with %d processes", len(owners), len(s.free), len(have))
		}
	}
}
