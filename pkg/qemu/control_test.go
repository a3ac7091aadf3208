package qemu

import (
	"strings"
	"testing"
	"time"
)

// controlled is a daemon with one domain, web, and what follows it.
type controlled struct {
	*control
	t     testing.TB
	fake  *fakeDaemon
	clock *clock
	web   domainRef
}

func newControlled(t *testing.T) *controlled {
	t.Helper()
	checkGoroutines(t)
	h, now := newHost(t), newClock()
	d := startDaemon(t, h.dir, "/run/libvirt/libvirt-sock-ro")
	d.domains = []fakeDomain{domainNamed("web", 1)}
	d.control.xml = map[string]string{"web": domainText}
	c := run(t, patient(h, now))
	control := newControl(&daemon{root: h.root, target: systemTarget(h.root), life: c.life}, c)
	return &controlled{control: control, t: t, fake: d, clock: now, web: d.domains[0].ref()}
}

// scrape does what a collection does, and returns web as it came out.
func (c *controlled) scrape() VM {
	c.t.Helper()
	var refs []domainRef
	c.fake.set(func(d *fakeDaemon) {
		for _, dom := range d.domains {
			refs = append(refs, dom.ref())
		}
	})
	c.start(refs)
	if done := c.pending(); done != nil {
		<-done
	}
	return c.know(&c.web)
}

func (c *controlled) know(ref *domainRef) (vm VM) {
	c.mu.Lock()
	defer c.mu.Unlock()
	vm.Definition, vm.Agent = c.about(ref)
	return vm
}

func (c *controlled) until(what string, met func(VM) bool) {
	c.t.Helper()
	eventually(c.t, what, func() bool { return met(c.scrape()) })
}

// eventually waits for something about the control itself.
func (c *controlled) eventually(what string, met func() bool) {
	c.t.Helper()
	eventually(c.t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return met()
	})
}

func TestControlReadsXMLOnceAndAgainOnEvents(t *testing.T) {
	c := newControlled(t)
	if vm := c.scrape(); vm.Definition == nil || vm.Definition.Machine != "pc-q35-10.0" || vm.Agent != Some(1) {
		t.Fatalf("the first scrape knows %+v, agent %v", vm.Definition, vm.Agent)
	}
	for range 100 {
		c.scrape()
	}
	if n := c.fake.readsOfWeb(); n != 1 {
		t.Errorf("100 scrapes read the XML %d times", n)
	}
	c.fake.set(func(d *fakeDaemon) { d.control.xml["web"] = strings.ReplaceAll(domainText, "vdb", "vdz") })
	c.clock.advance(xmlPace)
	c.fake.emit(procDeviceAdded, c.web, "virtio-disk7")
	// At once: no scrape starts it.
	eventually(t, "the XML is read for an event", func() bool { return c.fake.readsOfWeb() == 2 })
	c.until("the new disk is known", func(vm VM) bool { return vm.Definition.Disks[1].Target == "vdz" })
}

func TestControlHearsOfTheAgentWithoutXML(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.fake.emit(procAgentLifecycle, c.web, 2, 2)
	c.until("the agent is gone", func(vm VM) bool { return vm.Agent == Some(0) })
	c.fake.emit(procAgentLifecycle, c.web, 1, 2)
	c.until("the agent is back", func(vm VM) bool { return vm.Agent == Some(1) })
	if n := c.fake.readsOfWeb(); n != 1 {
		t.Errorf("the XML was read %d times", n)
	}
}

func TestControlTakesAFloodOfEventsForOne(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.clock.advance(xmlPace)
	c.mu.Lock()
	heard := c.domains[c.web.uuid].changes
	c.mu.Unlock()
	c.fake.emit(procMetadataChange, c.web, 0, 0)
	eventually(t, "the first event has the XML read", func() bool { return c.fake.readsOfWeb() == 2 })
	for range 400 {
		c.fake.emit(procMetadataChange, c.web, 0, 0)
	}
	c.eventually("all events are heard", func() bool { return c.domains[c.web.uuid].changes == heard+401 })
	c.eventually("the round ends", func() bool { return c.flight == nil })
	// While the clock stands still, the next reading has to wait.
	if n := c.fake.readsOfWeb(); n != 2 {
		t.Errorf("401 events read the XML %d times", n-1)
	}
	c.clock.advance(xmlPace)
	eventually(t, "the last event is not lost, and nobody scrapes", func() bool { return c.fake.readsOfWeb() == 3 })
}

func TestControlForgetsWhatIsGone(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.clock.advance(xmlPace)
	down := c.web
	down.number = inactive
	c.fake.emit(procLifecycle, down, 5, 0)
	eventually(t, "a machine that is down has no agent", func() bool { return c.fake.readsOfWeb() == 2 || !c.know(&c.web).Agent.Set })
	c.fake.set(func(d *fakeDaemon) { d.domains = nil })
	if vm := c.scrape(); vm.Definition != nil {
		t.Error("a machine that is on no list has XML")
	}
}

func TestControlForgetsATransientDomain(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.fake.set(func(d *fakeDaemon) { d.control.xml = nil })
	c.clock.advance(xmlPace)
	c.fake.emit(procLifecycle, c.web, 5, 0)
	eventually(t, "its XML is gone, and it with it", func() bool { return c.know(&c.web).Definition == nil })
}

// TestControlKnowsANewMachineBeforeAnyScrape: the event that it started is
// enough.
func TestControlKnowsANewMachineBeforeAnyScrape(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.fake.set(func(d *fakeDaemon) { d.control.xml["db"] = novaText })
	db := domainRef{name: "db", uuid: [16]byte{15: 2}, number: 2}
	c.fake.emit(procLifecycle, db, 2, 0)
	eventually(t, "the machine is known", func() bool { return c.know(&db).Definition != nil })
}

// TestControlReadsTheXMLOfAnotherQEMU: whatever events were missed, a new
// number says that the machine was started again.
func TestControlReadsTheXMLOfAnotherQEMU(t *testing.T) {
	c := newControlled(t)
	c.fake.set(func(d *fakeDaemon) { d.control.deaf = true })
	c.scrape()
	c.clock.advance(xmlPace)
	c.web.number++
	c.start([]domainRef{c.web})
	eventually(t, "the XML is read again", func() bool { return c.fake.readsOfWeb() == 2 })
}

func TestControlReadsAllAgainNowAndThen(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.clock.advance(resync)
	c.until("the XML is read again", func(VM) bool { return c.fake.readsOfWeb() == 2 })
}

func TestControlWorksWithoutEvents(t *testing.T) {
	c := newControlled(t)
	c.fake.set(func(d *fakeDaemon) { d.control.deaf = true })
	if vm := c.scrape(); vm.Definition == nil {
		t.Fatal("nothing is known")
	}
	c.scrape()
	if n := c.fake.readsOfWeb(); n != 1 {
		t.Errorf("read %d times", n)
	}
	c.clock.advance(resyncDeaf)
	c.until("the XML is read again", func(VM) bool { return c.fake.readsOfWeb() == 2 })
}

// TestControlLetsOneDomainHang: with somebody holding its job, the XML of a
// domain does not come for half a minute.
func TestControlLetsOneDomainHang(t *testing.T) {
	c := newControlled(t)
	c.limit = time.Second
	c.fake.set(func(d *fakeDaemon) {
		d.domains = append(d.domains, domainNamed("db", 2))
		d.control.xml["db"] = novaText
		d.control.held = map[string]bool{"web": true}
	})
	c.scrape()
	if db := c.know(&domainRef{uuid: [16]byte{15: 2}}); db.Definition == nil {
		t.Error("the other domain is unknown")
	}
	c.eventually("the hung one was given up", func() bool { return c.flight == nil && c.state.Abandoned == 1 })
	if vm := c.scrape(); vm.Definition != nil {
		t.Errorf("the hung one has %+v", vm.Definition)
	}
	for range 20 {
		c.scrape()
	}
	if n := c.fake.readsOfWeb(); n != 1 {
		t.Errorf("asked %d times while it rests", n)
	}
	c.fake.set(func(d *fakeDaemon) { d.control.held = nil })
	c.clock.advance(time.Minute)
	c.until("it is known when it answers", func(vm VM) bool { return vm.Definition != nil })
}

func TestControlComesBackWithTheDaemon(t *testing.T) {
	c := newControlled(t)
	c.scrape()
	c.fake.stop()
	c.eventually("the loss is noticed", func() bool { return !c.listening })
	if vm := c.scrape(); vm.Definition == nil {
		t.Error("what was known is forgotten with the connection")
	}
	c.eventually("the failure is told", func() bool { return c.state.Reason == SocketMissing })
	c.fake.set(func(d *fakeDaemon) { d.control.xml["web"] = novaText })
	c.fake.start()
	c.clock.advance(time.Minute)
	c.until("the daemon is followed again", func(vm VM) bool { return vm.Definition.nova })
}

func TestControlSurvivesHostileDaemons(t *testing.T) {
	for name, text := range map[string]string{
		"no XML":    "<",
		"an entity": `<!DOCTYPE d [<!ENTITY a "b">]><domain>&a;</domain>`,
		"too large": "<domain>" + strings.Repeat(" ", maxXML) + "</domain>",
	} {
		t.Run(name, func(t *testing.T) {
			c := newControlled(t)
			c.fake.set(func(d *fakeDaemon) { d.control.xml["web"] = text })
			if vm := c.scrape(); vm.Definition != nil {
				t.Errorf("have %+v", vm.Definition)
			}
			for range 20 {
				c.scrape()
			}
			if n := c.fake.readsOfWeb(); n != 1 {
				t.Errorf("read %d times", n)
			}
		})
	}
	t.Run("an event too large", func(t *testing.T) {
		c := newControlled(t)
		c.scrape()
		c.fake.emit(procDeviceAdded, c.web, strings.Repeat("x", maxEvent))
		c.eventually("the connection is dropped", func() bool { return !c.listening })
		if vm := c.scrape(); vm.Definition == nil {
			t.Error("what was known is forgotten")
		}
	})
}
