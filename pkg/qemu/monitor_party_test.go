package qemu

import (
	"fmt"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// settled is a fleet of which every machine has answered once.
func settled(t *testing.T, h *fakeHost, now *clock, opt Options, n int) (*fakeDaemon, *Collector) {
	t.Helper()
	d := fleet(t, h, n)
	c := run(t, opt)
	eventually(t, "all have answered", func() bool { return allComplete(c.Collect(t.Context()), now.Now()) })
	return d, c
}

func allComplete(s *Snapshot, at time.Time) bool {
	for _, vm := range s.VMs {
		if !complete(vm, at) {
			return false
		}
	}
	return true
}

// monitorCalls counts the calls for what only QEMU tells.
func (d *fakeDaemon) monitorCalls() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for groups, calls := range d.calls {
		if libvirt.DomainStatsTypes(groups)&libvirt.DomainStatsState == 0 {
			n += calls
		}
	}
	return n
}

func TestMachinesThatHaveAnsweredShareCalls(t *testing.T) {
	checkGoroutines(t)
	const machines = 20
	h, now := newHost(t), newClock()
	d, c := settled(t, h, now, patient(h, now), machines)
	if n := d.monitorCalls(); n != machines {
		t.Errorf("%d calls for %d machines of which there were no numbers, want one each", n, machines)
	}
	now.advance(31 * time.Second)
	before := d.monitorCalls()
	eventually(t, "all have answered again", func() bool { return allComplete(c.Collect(t.Context()), now.Now()) })
	if n, want := d.monitorCalls()-before, (machines+maxParty-1)/maxParty; n != want {
		t.Errorf("%d calls for %d machines with numbers, want %d", n, machines, want)
	}
}

// TestOneThatHangsInASharedCall: it is found out in the time of one call, and
// the others have their numbers all the while.
func TestOneThatHangsInASharedCall(t *testing.T) {
	checkGoroutines(t)
	const machines, culprit = 20, 3
	h, now := newHost(t), newClock()
	opt := patient(h, now)
	opt.Budget, opt.CallTimeout = 100*time.Millisecond, 3*time.Second
	d, c := settled(t, h, now, opt, machines)
	resume := d.hang(fmt.Sprintf("vm-%02d", culprit))
	now.advance(31 * time.Second)
	others := func(s *Snapshot) (n int) {
		for i, vm := range s.VMs {
			if i == culprit {
				continue
			}
			if len(vm.Blocks) != 1 || vm.Monitor.Reason != Ready || vm.Monitor.Abandoned != 0 {
				t.Fatalf("one that shared the call: %+v", vm.Monitor)
			}
			if complete(vm, now.Now()) {
				n++
			}
		}
		return n
	}
	eventually(t, "the one that hangs is known", func() bool {
		s := c.Collect(t.Context())
		others(s)
		return s.VMs[culprit].Monitor.Reason == CallTimeout
	})
	eventually(t, "the others are up to date", func() bool { return others(c.Collect(t.Context())) == machines-1 })
	s := c.Collect(t.Context())
	if vm := s.VMs[culprit]; vm.Monitor.Abandoned != 1 || len(vm.Blocks) > 0 && vm.Blocks[0].Read.Requests.Set {
		t.Errorf("the one that hangs: %+v", vm.Monitor)
	}
	if n := stateOf(s, system, Monitor).Abandoned; n != 1 {
		t.Errorf("%d calls were given up, want the one that was shared", n)
	}
	before := d.monitorCalls()
	now.advance(31 * time.Second)
	eventually(t, "the others go on", func() bool { return others(c.Collect(t.Context())) == machines-1 })
	if n, most := d.monitorCalls()-before, (machines+maxParty-1)/maxParty+1; n > most {
		t.Errorf("%d calls once it is known who hangs, want %d at most", n, most)
	}
	resume()
	eventually(t, "it is back", func() bool {
		now.advance(2 * time.Minute)
		return allComplete(c.Collect(t.Context()), now.Now())
	})
}

// TestARefusalOfASharedCall: libvirt refuses all of it when it cannot tell of
// one machine.
func TestARefusalOfASharedCall(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d, c := settled(t, h, now, patient(h, now), 10)
	d.set(func(d *fakeDaemon) { d.refused = "vm-03" })
	now.advance(31 * time.Second)
	eventually(t, "it costs the others nothing", func() bool {
		s := c.Collect(t.Context())
		n := 0
		for i, vm := range s.VMs {
			if i != 3 && complete(vm, now.Now()) {
				n++
			}
		}
		return n == 9 && s.VMs[3].Monitor.Reason == CallRefused && stateOf(s, system, Monitor).Up()
	})
	for range 20 { // the refusal is the last answer at times
		now.advance(31 * time.Second)
		if state := stateOf(c.Collect(t.Context()), system, Monitor); !state.Up() {
			t.Fatalf("one machine that is refused: %+v", state)
		}
	}
}
