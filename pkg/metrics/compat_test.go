package metrics

import (
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// kubevirtVM has a definition in which KubeVirt named the devices.
func kubevirtVM(name string) qemu.VM {
	vm := wholeVM(name, 1, 1, 1)
	vm.Kind, vm.Domain = qemu.KindKubeVirt, vm.Namespace+"_"+name
	vm.VCPUs[0].State = qemu.VCPUBlocked
	vm.Definition = &qemu.Definition{
		Disks:      []qemu.DiskDevice{{Target: "vda", Alias: "ua-rootdisk", Source: "/dev/rootdisk"}},
		Interfaces: []qemu.InterfaceDevice{{Target: "tap0", Alias: "ua-default", Bridge: "br0"}},
	}
	vm.Job = qemu.Job{
		Kind:   "migration out",
		Memory: qemu.Progress{Total: qemu.Some(100), Processed: qemu.Some(30), Remaining: qemu.Some(70), Rate: qemu.Some(5)},
		Disk:   qemu.Progress{Total: qemu.Some(1000), Processed: qemu.Some(300), Remaining: qemu.Some(700)},
	}
	return vm
}

func TestCompatPages(t *testing.T) {
	off := wholeVM("off", 1, 1, 1)
	off.State = qemu.StateShutoff
	snapshot := &qemu.Snapshot{
		VMs: []qemu.VM{
			kubevirtVM("web"), wholeVM("host", 1, 1, 1), off,
			{Name: "lonely", Source: qemu.SourceProc, State: qemu.StateRunning},
			kubevirtVM("web"),
		},
		Sources: []qemu.SourceState{{Source: "qemu:///system", Class: qemu.Light, Reason: qemu.Ready}},
	}
	for _, name := range Compats() {
		groups := map[string]bool{}
		for _, g := range vmGroups {
			groups[g.name] = false
		}
		var w writer
		w.reset(false)
		appendSnapshot(&w, snapshot, Selection{Groups: groups, Compat: []string{name}, Node: "node-1"}.compile())
		parse(t, string(w.buf))
		golden(t, "testdata/compat-"+name+".prom", string(w.buf))
	}
}

func TestDialectsFollowTheRules(t *testing.T) {
	for _, d := range dialects {
		for i := range d.families {
			f := &d.families[i]
			if strings.HasSuffix(f.name, "_total") != (f.kind == counter) || strings.ContainsAny(f.help, "\\\n|") || !strings.HasSuffix(f.help, ".") {
				t.Errorf("%s: %s, %q", f.name, f.kind, f.help)
			}
		}
		all, _ := Groups()
		for _, need := range d.needs {
			if !strings.Contains(" "+strings.Join(all, " ")+" ", " "+need+" ") {
				t.Errorf("%s needs %s, which is no group", d.name, need)
			}
		}
	}
}
