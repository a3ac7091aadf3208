package qemu

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// classes is a reading of the light class, and a monitor class that knows the
// CPU time of some of its machines.
func classes(vms []VM, monitored ...string) (*reading, *daemonSources) {
	r, m := &reading{vms: vms}, &monitor{guests: make(map[[16]byte]*guest), maxAge: time.Minute}
	for i, vm := range vms {
		id, _ := uuidOf(byte(i))
		r.refs = append(r.refs, domainRef{name: vm.Name, uuid: id})
		for _, name := range monitored {
			if name == vm.Name {
				m.guests[id] = &guest{last: reading{vms: []VM{{CPU: CPU{Time: Some(5)}}}}, health: Health{Reason: Ready}}
			}
		}
	}
	return r, &daemonSources{monitor: m, control: &control{}}
}

func noPod(uid string) pod { return pod{uid: uid} }

func TestMergeMakesOneMachineOfEach(t *testing.T) {
	processes := []VM{
		{Name: "renamed", UUID: "1", Source: SourceProc, Process: &Process{PID: 1}},
		{Name: "off", Source: SourceProc, Process: &Process{PID: 2}},
		{Name: "b", Source: SourceProc, Process: &Process{PID: 3}},
		{Name: "b", Source: SourceProc, Process: &Process{PID: 4}},
	}
	m := newMerger()
	var vms []VM
	for range 3 { // the memory of the one before must not show
		light, daemon := classes([]VM{{Name: "a", UUID: "1", Source: "x", State: StateRunning}, {Name: "off", UUID: "2", Source: "x", State: StateShutoff}}, "a")
		m.addDaemon(light, daemon, pod{}, time.Time{})
		light, daemon = classes([]VM{{Name: "a", UUID: "1", Source: "y", State: StatePaused}})
		m.addDaemon(light, daemon, pod{}, time.Time{})
		m.addProcesses(processes, noPod)
		vms = m.appendTo(vms[:0])
		var lines []string
		for _, vm := range vms {
			line := strings.Join([]string{vm.Name, vm.UUID, vm.Source, string(vm.State), string(vm.Monitor.Reason)}, " ")
			if vm.Process != nil {
				line += " pid " + strconv.Itoa(vm.Process.PID)
			}
			if vm.CPU.Time.Set {
				line += " cpu"
			}
			lines = append(lines, line)
		}
		want := []string{"a 1 x running Ready pid 1 cpu", "b  proc   pid 3", "off  proc   pid 2", "off 2 x shutoff "}
		if diff := cmp.Diff(want, lines); diff != "" || m.duplicates != 2 {
			t.Errorf("%d duplicates, want 2\n%s", m.duplicates, diff)
		}
		m.reset()
	}
}

// TestAProcessGoesToWhomIsTrusted: any user's libvirt may claim the UUID of
// somebody else's machine.
func TestAProcessGoesToWhomIsTrusted(t *testing.T) {
	for name, test := range map[string]struct {
		first, second State
		want          string
	}{
		"both run":                  {StateRunning, StatePaused, "first"},
		"neither does":              {StateShutoff, StateShutoff, "first"},
		"only defined in the first": {StateShutoff, StateRunning, "second"},
		"the second is off":         {StateRunning, StateShutoff, "first"},
	} {
		m := newMerger()
		for _, vm := range []VM{{Name: "first", UUID: "1", Source: "x", State: test.first}, {Name: "second", UUID: "1", Source: "y", State: test.second}} {
			light, daemon := classes([]VM{vm})
			m.addDaemon(light, daemon, pod{}, time.Time{})
		}
		m.addProcesses([]VM{{Name: "first", UUID: "1", Source: SourceProc, Process: &Process{PID: 1}}}, noPod)
		for _, vm := range m.appendTo(nil) {
			if has := vm.Process != nil; has != (vm.Name == test.want) {
				t.Errorf("%s: %s has the process: %t", name, vm.Name, has)
			}
		}
	}
}

func TestNumbersPastTheirAgeAreLeftOut(t *testing.T) {
	light, daemon := classes([]VM{{Name: "a"}}, "a")
	for age, want := range map[time.Duration]bool{time.Minute: true, time.Minute + 1: false} {
		m := newMerger()
		m.addDaemon(light, daemon, pod{}, time.Time{}.Add(age))
		if vms := m.appendTo(nil); len(vms) != 1 || vms[0].CPU.Time.Set != want || vms[0].Monitor.Reason != Ready {
			t.Errorf("after %s: %+v", age, vms)
		}
	}
}
