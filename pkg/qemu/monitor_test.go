package qemu

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fleet starts a daemon with n running domains, vm-00 and so on.
func fleet(t *testing.T, h *fakeHost, n int) *fakeDaemon {
	t.Helper()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock")
	for i := range n {
		d.domains = append(d.domains, domainNamed(fmt.Sprintf("vm-%02d", i), byte(i+1)))
	}
	return d
}

// complete reports whether all classes have told of a machine at a time.
func complete(vm VM, at time.Time) bool {
	return vm.State == StateRunning && len(vm.Interfaces) == 1 && vm.Memory.Resident.Set && len(vm.Blocks) == 1 &&
		vm.Blocks[0].Read.Requests.Set && vm.Monitor == Health{Reason: Ready, LastSuccess: at, Abandoned: vm.Monitor.Abandoned}
}

func TestAHungQEMUCostsTheOthersNothing(t *testing.T) {
	const machines = 30
	for name, hung := range map[string]int{"one": 1, "as many as there are slots": 4} {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			h, now := newHost(t), newClock()
			d := fleet(t, h, machines)
			var resume []func()
			for i := range hung {
				resume = append(resume, d.hang(fmt.Sprintf("vm-%02d", i)))
			}
			opt := patient(h, now)
			opt.Budget, opt.CallTimeout = 200*time.Millisecond, time.Second
			c := run(t, opt)
			others := func(s *Snapshot) (n int) {
				for _, vm := range s.VMs[hung:] {
					if complete(vm, now.Now()) {
						n++
					}
				}
				return n
			}
			// The budget may be too short for all others on a slow machine, but no hung
			// one stands in their way.
			eventually(t, "the others are complete before any call is given up", func() bool {
				s := c.Collect(t.Context())
				if vm := s.VMs[0]; vm.State != StateRunning || vm.Memory.Current.Set || vm.Monitor.Abandoned > 0 {
					t.Fatalf("%+v", vm)
				}
				return others(s) == machines-hung
			})
			eventually(t, "the calls are given up", func() bool {
				s := c.Collect(t.Context())
				if n := others(s); n != machines-hung {
					t.Errorf("%d others are complete", n)
				}
				return stateOf(s, system, Monitor).Abandoned == uint64(hung)
			})
			s := c.Collect(t.Context())
			vm := s.VMs[0]
			if want := (Health{Reason: CallTimeout, Abandoned: 1}); vm.Monitor != want || vm.Memory.Resident.Set || !vm.CPU.Time.Set {
				t.Errorf("what needs no QEMU is told of a hung one: %+v", vm)
			}
			asked := d.times(vm.Name)
			for range 3 {
				c.Collect(t.Context())
			}
			if again := d.times(vm.Name); again != asked {
				t.Errorf("the hung one was asked %d times during its rest", again-asked)
			}
			for _, f := range resume {
				f()
			}
			eventually(t, "the hung ones are back", func() bool {
				now.advance(2 * time.Minute)
				s := c.Collect(t.Context())
				return complete(s.VMs[0], now.Now()) && others(s) == machines-hung
			})
		})
	}
}

func TestWhenStorageFailsTheDaemonKeepsItsWorkers(t *testing.T) {
	checkGoroutines(t)
	const machines = 25
	h, now := newHost(t), newClock()
	d := fleet(t, h, machines)
	var resume []func()
	for i := range machines {
		resume = append(resume, d.hang(fmt.Sprintf("vm-%02d", i)))
	}
	opt := patient(h, now)
	opt.Budget, opt.CallTimeout = 20*time.Millisecond, 100*time.Millisecond
	c := run(t, opt)
	eventually(t, "no more are asked", func() bool {
		s := c.Collect(t.Context())
		return len(s.VMs) == machines && s.VMs[machines-1].Monitor.Reason == TooManyHung && stateOf(s, system, Monitor).Reason == CallTimeout
	})
	for range 5 {
		now.advance(2 * time.Minute)
		c.Collect(t.Context())
	}
	d.set(func(d *fakeDaemon) {
		if n := len(d.held); n < maxHung || n > maxHung+2*4 {
			t.Errorf("%d calls keep a worker of the daemon, want %d and those on their way then", n, maxHung)
		}
	})
	for _, f := range resume {
		f()
	}
	eventually(t, "all are back", func() bool {
		now.advance(2 * time.Minute)
		s := c.Collect(t.Context())
		for _, vm := range s.VMs {
			if !complete(vm, now.Now()) {
				return false
			}
		}
		return stateOf(s, system, Monitor).Up()
	})
}

func TestABusyMachineKeepsItsNumbersWhileTheyAreYoung(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 2)
	c := run(t, patient(h, now))
	c.Collect(t.Context())
	first := now.Now()
	d.set(func(d *fakeDaemon) { d.held["vm-00"] = true })
	for i, want := range []bool{true, true, true, false, false} {
		age := 20 * (i + 1)
		now.advance(20 * time.Second)
		s := c.Collect(t.Context())
		vm := s.VMs[0]
		if vm.Monitor != (Health{Reason: Busy, LastSuccess: first}) || !vm.CPU.Time.Set || vm.Memory.Resident.Set != want || vm.Blocks[0].Read.Requests.Set != want {
			t.Errorf("after %d s: %+v", age, vm)
		}
		if !complete(s.VMs[1], now.Now()) {
			t.Errorf("the other one: %+v", s.VMs[1])
		}
	}
	d.set(func(d *fakeDaemon) { delete(d.held, "vm-00") })
	if vm := c.Collect(t.Context()).VMs[0]; !complete(vm, now.Now()) {
		t.Errorf("free again: %+v", vm)
	}
}

func TestARestartedMachineHasNoNumbersOfItsLastQEMU(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 1)
	c := run(t, patient(h, now))
	c.Collect(t.Context())
	d.set(func(d *fakeDaemon) { d.held["vm-00"] = true; d.domains[0].starts++ })
	if vm := c.Collect(t.Context()).VMs[0]; vm.Memory.Resident.Set || vm.Monitor != (Health{Reason: Busy}) {
		t.Errorf("%+v", vm)
	}
}

func TestMachinesComeAndGo(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 6)
	all := d.domains
	c := run(t, patient(h, now))
	for _, shown := range [][]fakeDomain{all, all[2:], all[:3], nil, all[4:5], all} {
		d.set(func(d *fakeDaemon) { d.domains = shown })
		s := c.Collect(t.Context())
		var want, got []string
		for _, dom := range shown {
			want = append(want, dom.name)
		}
		for _, vm := range s.VMs {
			if got = append(got, vm.Name); !complete(vm, now.Now()) {
				t.Errorf("%+v", vm)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || !stateOf(s, system, Monitor).Up() {
			t.Errorf("%+v\n%s", s.Sources, diff)
		}
		if n := len(c.daemons[0].monitor.guests); n != len(shown) {
			t.Errorf("%d machines are remembered, want %d", n, len(shown))
		}
	}
}

func TestAMachineThatVanishesBetweenItsClassesCostsNothing(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 3)
	d.unlisted = map[string]bool{"vm-01": true}
	c := run(t, patient(h, now))
	s := c.Collect(t.Context())
	if !complete(s.VMs[0], now.Now()) || !complete(s.VMs[2], now.Now()) || s.VMs[1].CPU.Time.Set || !stateOf(s, system, Monitor).Up() {
		t.Errorf("%+v", s)
	}
}
