package qemu

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// paces is a daemon with one machine, whose process is there, and a collector.
type paces struct {
	t     *testing.T
	host  *fakeHost
	clock *clock
	fake  *fakeDaemon
	*Collector
}

const (
	cpus     = uint32(libvirt.DomainStatsCPUTotal | libvirt.DomainStatsVCPU)
	memory   = uint32(libvirt.DomainStatsBalloon)
	disks    = uint32(libvirt.DomainStatsBlock)
	kvm      = uint32(libvirt.DomainStatsVm)
	iothread = uint32(libvirt.DomainStatsIothread)
)

// newPaces starts it. The machine is one without KVM and I/O threads, with a
// guest that tells nothing and disks that stand still.
func newPaces(t *testing.T, change func(*paces, *fakeDomain)) *paces {
	t.Helper()
	checkGoroutines(t)
	p := &paces{t: t, host: newHost(t), clock: newClock()}
	p.fake = startDaemon(t, p.host.dir, "/run/libvirt/libvirt-sock")
	dom := domainNamed("web", 1)
	dom.params[uint32(libvirt.DomainStatsCPUTotal)] = []fakeParam{{"cpu.time", uint64(9)}, {"cpu.haltpoll.success.time", uint64(0)}}
	dom.params[uint32(libvirt.DomainStatsVCPU)] = []fakeParam{{"vcpu.current", uint32(1)}, {"vcpu.maximum", uint32(2)}, {"vcpu.0.state", int32(1)}, {"vcpu.0.time", uint64(7)}, {"vcpu.0.wait", uint64(0)}}
	dom.params[kvm], dom.params[iothread] = nil, []fakeParam{{"iothread.count", uint32(0)}}
	p.fake.control.xml = map[string]string{"web": domainText}
	p.process(100, 50)
	if change != nil {
		change(p, &dom)
	}
	p.fake.domains = []fakeDomain{dom}
	p.Collector = run(t, patient(p.host, p.clock))
	eventually(t, "the process and the XML are known", func() bool {
		s := p.Collect(t.Context())
		defer s.Release()
		return s.VMs[0].Process != nil && s.VMs[0].Definition != nil && s.VMs[0].Monitor.Reason == Ready
	})
	p.fake.set(func(d *fakeDaemon) { d.domains[0].starts++ }) // and nothing else, when it is asked for first
	return p
}

// process sets what the machine's process has used, in ticks, and stored.
func (p *paces) process(ticks uint64, stored int, more ...thread) {
	_, uuid := uuidOf(1)
	p.host.process(10, 1, "qemu-kvm\x00-name\x00guest=web\x00-uuid\x00"+uuid+"\x00", ticks, append([]thread{{"CPU 0/KVM", ticks / 2}}, more...)...)
	p.host.write("/proc/10/io", fmt.Sprintf("rchar: 1\nread_bytes: 500\nwrite_bytes: %d\n", stored))
}

// asked collects after some seconds, and returns the groups that were asked for.
func (p *paces) asked(after int) (groups uint32) {
	p.t.Helper()
	p.clock.advance(time.Duration(after) * time.Second)
	var before map[uint32]int
	p.fake.set(func(d *fakeDaemon) { before = maps.Clone(d.calls) })
	s := p.Collect(p.t.Context())
	defer s.Release()
	p.fake.set(func(d *fakeDaemon) {
		for groups = range d.calls {
			if groups != lightGroups && d.calls[groups] > before[groups] {
				return
			}
		}
		groups = 0
	})
	vm := s.VMs[0]
	if len(s.VMs) != 1 || !vm.Memory.Current.Set || len(vm.Blocks) != 1 || vm.Maximum != Some(2) || vm.Process == nil || vm.CPU.Time.V != 1000*uint64(tick)/10 ||
		len(vm.VCPUs) != len(vm.Process.VCPUs) || vm.VCPUs[0].State != VCPURunning || vm.VCPUs[0].Time.V != 500*uint64(tick)/10 {
		p.t.Errorf("incomplete: %+v", vm)
	}
	return groups
}

// eventually collects until groups are asked for, and nothing before.
func (p *paces) eventually(what string, groups uint32) {
	p.t.Helper()
	eventually(p.t, what, func() bool {
		got := p.asked(0)
		if got != 0 && got != groups {
			p.t.Errorf("%s: asked for %#x, want %#x", what, got, groups)
		}
		return got == groups
	})
}

func (p *paces) expect(after int, want uint32) {
	p.t.Helper()
	if got := p.asked(after); got != want {
		p.t.Errorf("asked for groups %#x, want %#x", got, want)
	}
}

func TestAMachineThatStandsStillIsAskedForItsDisksOnly(t *testing.T) {
	p := newPaces(t, nil)
	p.expect(0, monitorGroups)
	p.expect(0, 0)
	p.expect(9, 0)
	p.expect(1, disks) // whether they stand still is known from now on
	p.expect(24, 0)
	p.expect(1, disks)
	p.clock.advance(10 * time.Second)

	p.process(100, 51)
	p.eventually("the process has written", disks)
	p.clock.advance(10 * time.Second)
	p.fake.emit(procBalloonChange, p.fake.domains[0].ref(), 1)
	p.eventually("the balloon has changed", memory)
	p.clock.advance(10 * time.Second)
	p.process(100, 51, thread{"CPU 1/KVM", 0})
	p.eventually("a virtual CPU was added", cpus|disks)
	p.clock.advance(10 * time.Second)
	p.fake.emit(procDeviceAdded, p.fake.domains[0].ref(), "virtio-disk1")
	p.eventually("a device was added", monitorGroups)
	p.clock.advance(time.Second)
	p.fake.set(func(d *fakeDaemon) { d.domains[0].starts++ })
	p.expect(0, monitorGroups)
}

func TestWhatChangesIsAskedForAtEveryScrape(t *testing.T) {
	n := 0
	move := func(d *fakeDaemon) {
		n++
		d.domains[0].params[disks] = []fakeParam{{"block.count", uint32(1)}, {"block.0.name", "vda"}, {"block.0.rd.reqs", uint64(n)}}
	}
	p := newPaces(t, func(p *paces, dom *fakeDomain) {
		dom.params[memory] = append(dom.params[memory], fakeParam{"balloon.usable", uint64(5)})
	})
	p.expect(0, monitorGroups)
	p.fake.set(move)
	for range 3 {
		p.fake.set(move)
		p.expect(15, memory|disks)
		p.expect(5, 0) // another scraper
	}
}

func TestStatisticsOfKVMAreAskedForNowAndThen(t *testing.T) {
	p := newPaces(t, func(_ *paces, dom *fakeDomain) {
		dom.params[kvm] = []fakeParam{{"vm.remote_tlb_flush.sum", uint64(72)}}
		dom.params[uint32(libvirt.DomainStatsVCPU)] = append(dom.params[uint32(libvirt.DomainStatsVCPU)], fakeParam{"vcpu.0.exits.sum", uint64(5)})
		dom.params[uint32(libvirt.DomainStatsCPUTotal)] = append(dom.params[uint32(libvirt.DomainStatsCPUTotal)], fakeParam{"cpu.haltpoll.fail.time", uint64(3)})
	})
	p.expect(0, monitorGroups)
	p.expect(15, disks)
	for range 3 {
		p.expect(15, cpus|kvm|disks)
		p.expect(15, 0)
	}
}

// TestAnAgeIsThatOfTheOldestNumber that may have changed since.
func TestAnAgeIsThatOfTheOldestNumber(t *testing.T) {
	p := newPaces(t, func(_ *paces, dom *fakeDomain) {
		dom.params[memory] = append(dom.params[memory], fakeParam{"balloon.usable", uint64(5)})
	})
	var ages []string
	for range 7 {
		s := p.Collect(t.Context())
		ages = append(ages, time.Duration(s.VMs[0].Monitor.Age.V).String())
		if at := stateOf(s, system, Monitor).LastSuccess; p.clock.Now().Sub(at) != time.Duration(s.VMs[0].Monitor.Age.V) {
			t.Errorf("the source's last success was at %v", at)
		}
		p.clock.advance(15 * time.Second)
	}
	// Its memory is asked for each time, its disks every other time.
	if want := "0s 0s 15s 0s 15s 0s 15s"; strings.Join(ages, " ") != want {
		t.Errorf("ages %v, want %s", ages, want)
	}
}

// TestWithoutEventsABalloonIsAskedNowAndThen, since it may change unheard.
func TestWithoutEventsABalloonIsAskedNowAndThen(t *testing.T) {
	p := newPaces(t, func(p *paces, _ *fakeDomain) { p.fake.control.deaf = true })
	times := 0
	for range 10 {
		if p.asked(15)&memory != 0 {
			times++
		}
	}
	if times < 5 {
		t.Errorf("asked %d times in 150 s", times)
	}
}

// TestWithoutItsProcessAMachineIsAskedForItsCPUs, and what libvirt told of them
// is not served once the kernel has counted.
func TestWithoutItsProcessAMachineIsAskedForItsCPUs(t *testing.T) {
	h, now := newHost(t), newClock()
	d := fleet(t, h, 1)
	d.control.xml = map[string]string{"vm-00": domainText} // whose balloon tells nothing
	c := run(t, patient(h, now))
	for i := range uint64(4) {
		d.set(func(d *fakeDaemon) {
			d.domains[0].params[memory] = []fakeParam{{"balloon.current", uint64(1)}, {"balloon.rss", i + 1}}
		})
		if vm := c.Collect(t.Context()).VMs[0]; vm.CPU.Time != Some(12_345_678_901) || vm.Memory.Resident != Some((i+1)<<10) {
			t.Errorf("%+v", vm)
		}
		now.advance(15 * time.Second)
	}
	if n := d.times("vm-00"); n != 4 {
		t.Errorf("asked %d times", n)
	}
	_, uuid := uuidOf(1)
	h.process(10, 1, "qemu-kvm\x00-name\x00guest=vm-00\x00-uuid\x00"+uuid+"\x00", 5)
	for range 2 {
		if vm := c.Collect(t.Context()).VMs[0]; vm.CPU.Time != Some(50_000_000) {
			t.Errorf("with its process: %+v", vm.CPU)
		}
	}
	h.remove("/proc/10")
	if vm := c.Collect(t.Context()).VMs[0]; vm.CPU.Time.Set || vm.VCPUs[1].Delay.Set || !vm.Memory.Current.Set {
		t.Errorf("with its process gone: %+v", vm)
	}
}

// TestAScrapeWaitsOnlyForWhatItLacks has a machine that takes its time, and
// numbers of it that are young enough.
func TestAScrapeWaitsOnlyForWhatItLacks(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := fleet(t, h, 2)
	opt := patient(h, now)
	opt.Budget = time.Minute
	c := run(t, opt)
	c.Collect(t.Context()).Release()
	resume := d.hang("vm-00")
	now.advance(15 * time.Second)
	m := c.daemons[0].monitor
	m.mu.Lock()
	m.each = time.Hour // as if rounds were long
	m.mu.Unlock()
	s := c.Collect(t.Context())
	if !slices.ContainsFunc(s.VMs, func(vm VM) bool {
		return vm.Monitor.Age == Some(uint64(15*time.Second)) && vm.Blocks[0].Read.Requests.Set
	}) {
		t.Errorf("nothing is served of the round before: %+v", s.VMs)
	}
	s.Release()
	d.set(func(d *fakeDaemon) { d.domains = append(d.domains, domainNamed("vm-02", 3)) })
	if s := c.Collect(t.Context()); len(s.VMs) != 3 || !complete(s.VMs[2], now.Now()) {
		t.Errorf("a new machine is not waited for: %+v", s.VMs)
	}
	resume()
}

// TestScrapesDoNotPutOffARound has scrapers that come faster than what nobody
// waits for begins.
func TestScrapesDoNotPutOffARound(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	opt := patient(h, now)
	opt.Budget = 4 * time.Second
	_, c := settled(t, h, now, opt, 3)
	m := c.daemons[0].monitor
	m.mu.Lock()
	m.each = time.Hour // as if rounds were long
	m.mu.Unlock()
	now.advance(31 * time.Second)
	eventually(t, "all have answered again", func() bool {
		for range 20 {
			c.Collect(t.Context()).Release()
			time.Sleep(5 * time.Millisecond)
		}
		return allComplete(c.Collect(t.Context()), now.Now())
	})
}

// TestAScrapeAMinuteIsToldWhatIs has a scraper that comes about as often as
// numbers live.
func TestAScrapeAMinuteIsToldWhatIs(t *testing.T) {
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	opt := patient(h, now)
	_, c := settled(t, h, now, opt, 3)
	m := c.daemons[0].monitor
	for _, interval := range []time.Duration{55 * time.Second, 60 * time.Second, 65 * time.Second} {
		m.mu.Lock()
		m.each = time.Hour // as if rounds were long
		m.mu.Unlock()
		now.advance(interval)
		if s := c.Collect(t.Context()); !allComplete(s, now.Now()) {
			t.Errorf("after %v: %+v", interval, s.VMs)
		}
	}
}
