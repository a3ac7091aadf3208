package qemu

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
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
		vm.Blocks[0].Read.Requests.Set && vm.Monitor.Reason == Ready && vm.Monitor.LastSuccess.Equal(at)
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
			opt.Budget, opt.CallTimeout = 200*time.Millisecond, 2*time.Second
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
				return stateOf(s, system, Monitor).Abandoned >= uint64(hung)
			})
			var vm VM
			eventually(t, "what needs no QEMU is told of a hung one", func() bool {
				vm = c.Collect(t.Context()).VMs[0]
				return vm.CPU.Time.Set
			})
			if want := (Health{Reason: CallTimeout, Abandoned: 1}); vm.Monitor != want || vm.Memory.Resident.Set {
				t.Errorf("a hung one: %+v", vm)
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
	for name, before := range map[string]bool{"before any has answered": false, "after all have answered": true} {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			const machines = 25
			h, now := newHost(t), newClock()
			opt := patient(h, now)
			opt.Budget, opt.CallTimeout = 20*time.Millisecond, 100*time.Millisecond
			d := fleet(t, h, machines)
			c := run(t, opt)
			if before {
				eventually(t, "all have answered", func() bool { return allComplete(c.Collect(t.Context()), now.Now()) })
			}
			var resume []func()
			for i := range machines {
				resume = append(resume, d.hang(fmt.Sprintf("vm-%02d", i)))
			}
			now.advance(31 * time.Second)
			eventually(t, "no more are asked", func() bool {
				s := c.Collect(t.Context())
				refused := 0
				for _, vm := range s.VMs {
					switch vm.Monitor.Reason {
					case TooManyHung:
						refused++
					case CallTimeout:
					default:
						return false
					}
				}
				return len(s.VMs) == machines && refused > 0 && stateOf(s, system, Monitor).Reason == CallTimeout
			})
			for range 5 {
				now.advance(2 * time.Minute)
				c.Collect(t.Context())
			}
			d.set(func(d *fakeDaemon) {
				// Those on their way when the limit is reached, and the shared ones, which only find out that somebody hangs.
				if n := len(d.held); n < maxHung || n > maxHung+2*4 {
					t.Errorf("%d calls keep a worker of the daemon, want %d and at most 8 more", n, maxHung)
				}
			})
			for _, f := range resume {
				f()
			}
			eventually(t, "all are back", func() bool {
				now.advance(2 * time.Minute)
				s := c.Collect(t.Context())
				return allComplete(s, now.Now()) && stateOf(s, system, Monitor).Up()
			})
		})
	}
}

func TestABusyMachineKeepsItsNumbersWhileTheyAreYoung(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 2)
	c := run(t, patient(h, now))
	c.Collect(t.Context())
	first := now.Now()
	d.set(func(d *fakeDaemon) { d.held["vm-00"] = true })
	for i, want := range []bool{true, true, false, false} {
		age := 30 * (i + 1)
		now.advance(30 * time.Second)
		s := c.Collect(t.Context())
		vm := s.VMs[0]
		if vm.Monitor != (Health{Reason: Busy, LastSuccess: first, Age: Some(uint64(now.Now().Sub(first)))}) || !vm.CPU.Time.Set || vm.Memory.Resident.Set != want || vm.Blocks[0].Read.Requests.Set != want {
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

func TestFaultsInOneMachinesCallAreItsOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		mode mode
		want Reason
	}{
		"closes instead of answering":  {closeConn, ConnectionLost},
		"closes in the reply":          {closeMid, ConnectionLost},
		"answers something else":       {garbage, BadReply},
		"announces two GiB":            {hugeLength, BadReply},
		"announces less than a header": {shortLength, BadReply},
		"answers another call":         {wrongSerial, BadReply},
		"sends what nobody asked for":  {event, BadReply},
		"sends no statistics":          {nonsense, BadReply},
		"refuses the call":             {refuse, CallRefused},
		"hangs":                        {hang, CallTimeout},
		"stops in the reply":           {hangMid, CallTimeout},
		"sends a byte now and then":    {drip, CallTimeout},
		"never stops sending":          {endless, BadReply},
	} {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			h, now := newHost(t), newClock()
			d := fleet(t, h, 3)
			opt := patient(h, now)
			if tc.want == CallTimeout {
				opt.CallTimeout = 300 * time.Millisecond // what the fake makes it wait; other calls need less
			}
			c := run(t, opt)
			eventually(t, "a first reading", func() bool {
				s := c.Collect(t.Context())
				return len(s.VMs) == 3 && complete(s.VMs[2], now.Now())
			})
			d.set(func(d *fakeDaemon) { d.mode, d.named = tc.mode, true })
			now.advance(15 * time.Second)
			s := c.Collect(t.Context())
			for _, vm := range s.VMs {
				if vm.State != StateRunning || len(vm.Interfaces) != 1 || vm.Memory.Resident.Set || vm.Monitor.Reason != tc.want {
					t.Errorf("%+v", vm)
				}
			}
			if light, monitor := stateOf(s, system, Light), stateOf(s, system, Monitor); !light.Up() || monitor.Up() {
				t.Errorf("%+v, %+v", light, monitor)
			}
			d.set(func(d *fakeDaemon) { d.mode = answer })
			eventually(t, "all is well again", func() bool {
				now.advance(2 * time.Minute)
				s := c.Collect(t.Context())
				return complete(s.VMs[0], now.Now()) && complete(s.VMs[2], now.Now()) && stateOf(s, system, Monitor).Up()
			})
		})
	}
}

// TestManyScrapersWhileAllGoesWrong has twenty callers at once, machines that
// come, go, hang and restart, and a daemon that restarts and misbehaves.
// Afterwards nothing is left over.
func TestManyScrapersWhileAllGoesWrong(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 12)
	all := d.domains
	opt := patient(h, now)
	opt.Budget, opt.CallTimeout = 20*time.Millisecond, 50*time.Millisecond
	c := run(t, opt)
	c.Collect(t.Context()).Release()
	before := openFiles(t)

	done := make(chan struct{})
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s := c.Collect(t.Context())
				for i, vm := range s.VMs {
					if !strings.HasPrefix(vm.Name, "vm-") || i > 0 && vm.Name <= s.VMs[i-1].Name {
						t.Errorf("machine %d is %+v", i, vm)
					}
				}
				if i%3 > 0 { // who forgets it costs memory only
					s.Release()
				}
			}
		})
	}
	for round, mode := range []mode{answer, hang, garbage, answer, drip, closeMid, endless, answer, hangMid, hangOpen, answer} {
		resume := d.hang(fmt.Sprintf("vm-%02d", round))
		d.set(func(d *fakeDaemon) {
			d.mode, d.named = mode, round%2 == 0
			d.domains = slices.Clone(all[round%3:])
			d.domains[0].starts++
		})
		calls := d.count(lightGroups)
		now.advance(10 * time.Second)
		eventually(t, "some collections", func() bool { return mode == hangOpen || d.count(lightGroups) > calls || mode != answer })
		if round%4 == 3 {
			d.stop()
			d.start()
		}
		resume()
	}
	d.set(func(d *fakeDaemon) { d.mode, d.domains = answer, all })
	close(done)
	callers.Wait()
	eventually(t, "all are complete", func() bool {
		now.advance(2 * time.Minute)
		s := c.Collect(t.Context())
		defer s.Release()
		for _, vm := range s.VMs {
			if !complete(vm, now.Now()) {
				return false
			}
		}
		return len(s.VMs) == len(all)
	})
	// Up to as many connections as there are slots, and theirs in the fake.
	eventually(t, "no more files are open than before", func() bool { return openFiles(t) <= before+2*2*4 })
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestASnapshotBelongsToWhoHasIt(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 2)
	c := run(t, patient(h, now))
	kept := c.Collect(t.Context())
	var memory *VM
	for i := range 5 {
		now.advance(time.Second)
		d.set(func(d *fakeDaemon) { d.domains[0].name = fmt.Sprintf("vm-0%d", i) })
		s := c.Collect(t.Context())
		if i > 0 && &s.VMs[0] != memory {
			t.Error("memory that was given back is not used again")
		}
		memory = &s.VMs[0]
		s.Release()
		s.Release()
		if len(s.VMs) > 0 || len(s.Sources) > 0 {
			t.Error("a snapshot can be read after its release")
		}
	}
	if kept.VMs[0].Name != "vm-00" || !complete(kept.VMs[1], now.Now().Add(-5*time.Second)) {
		t.Errorf("a snapshot that was not given back has changed: %+v", kept.VMs)
	}
}

func TestOnlyGroupsThatAreOnAreAskedFor(t *testing.T) {
	h, now := newHost(t), newClock()
	d := fleet(t, h, 1)
	opt := patient(h, now)
	opt.Groups = map[string]bool{"network": false, "perf": false, "bandwidth": false, "memory": false, "kvm": false, "iothread": false, "dirtyrate": true}
	opt.KVMStats = []string{"guest_mode"}
	c := run(t, opt)
	vm := c.Collect(t.Context()).VMs[0]
	want := vmNamed("vm-00", 1, system, now.Now())
	want.Interfaces, want.Perf, want.Bandwidth, want.Memory, want.KVM, want.IOThreads = nil, nil, nil, Memory{}, nil, nil
	want.DirtyRate = DirtyRate{State: DirtyRateMeasured, Period: Some(1), Rate: Some(3 << 20)}
	want.VCPUKVM = []KVMStat{{VCPU: 3, Name: "guest_mode", Type: KVMCurrent, Value: Some(0)}}
	if diff := cmp.Diff(want, vm); diff != "" {
		t.Error(diff)
	}
	if n := d.count(uint32(libvirt.DomainStatsState)); n != 1 {
		t.Errorf("%d calls for the state alone, want 1", n)
	}
}

func TestNoQEMUIsAskedWhenNothingIsOn(t *testing.T) {
	h, now := newHost(t), newClock()
	d := fleet(t, h, 1)
	opt := patient(h, now)
	opt.Groups = map[string]bool{"cpu": false, "vcpu": false, "memory": false, "block": false, "kvm": false, "iothread": false}
	s := run(t, opt).Collect(t.Context())
	if vm := s.VMs[0]; d.times(vm.Name) > 0 || vm.Monitor != (Health{}) || vm.State != StateRunning || !stateOf(s, system, Monitor).Up() {
		t.Errorf("asked %d times: %+v, %+v", d.times(vm.Name), vm, s.Sources)
	}
}
