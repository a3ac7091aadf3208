package metrics

import (
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// dialect is the families and labels of another exporter, made of the same
// samples so that its dashboards go on. docs/compat.md says where values differ.
type dialect struct {
	name     string
	labels   string // on every series
	needs    []string
	speaks   func(*qemu.VM) bool // which machines the other one knows
	label    func(buf []byte, vm *qemu.VM, node string) []byte
	families []family[qemu.VM]
	page     []family[*qemu.Snapshot] // without a machine
}

// dialects are all there are, in the order of the page.
var dialects = [...]dialect{
	{
		name: "libvirt-exporter", labels: "domain uuid", needs: []string{"info", "state", "cpu", "vcpu", "memory", "network", "block"},
		speaks: func(vm *qemu.VM) bool { return vm.Source != qemu.SourceProc && active(vm.State) },
		label: func(buf []byte, vm *qemu.VM, _ string) []byte {
			buf = appendLabel(buf, "domain", domainOf(vm))
			return appendLabel(append(buf, ','), "uuid", vm.UUID)
		},
		families: libvirtExporterFamilies[:],
		page:     libvirtExporterPage[:],
	},
	{
		name: "kubevirt", labels: "node namespace name", needs: []string{"info", "state", "cpu", "vcpu", "memory", "network", "block", "job"},
		speaks: func(vm *qemu.VM) bool { return vm.Kind == qemu.KindKubeVirt },
		label: func(buf []byte, vm *qemu.VM, node string) []byte {
			buf = appendLabel(buf, "node", node)
			buf = appendLabel(append(buf, ','), "namespace", vm.Namespace)
			return appendLabel(append(buf, ','), "name", vm.Name)
		},
		families: kubevirtFamilies[:],
	},
}

// Compats lists the exporters whose families can be served too.
func Compats() []string {
	var names []string
	for _, d := range dialects {
		names = append(names, d.name)
	}
	return names
}

// appendDialect appends the families of another exporter. Where its labels
// cannot tell two machines apart, the first one is it.
func appendDialect(w *writer, snapshot *qemu.Snapshot, d *dialect, node string) {
	labelAll(w, snapshot.VMs, func(buf []byte, vm *qemu.VM) []byte { return d.label(buf, vm, node) })
	seen, start := make(map[string]bool, len(snapshot.VMs)), 0
	for i := range snapshot.VMs {
		labels := string(w.bases[start:w.ends[i]])
		start = w.ends[i]
		w.skip = append(w.skip, seen[labels] || !d.speaks(&snapshot.VMs[i]))
		seen[labels] = seen[labels] || !w.skip[i]
	}
	writeLabelled(w, d.families, snapshot.VMs)
	w.skip = w.skip[:0]
}

// domainOf is what libvirt calls a machine.
func domainOf(vm *qemu.VM) string {
	if vm.Domain != "" {
		return vm.Domain
	}
	return vm.Name
}

// active reports whether libvirt counts a domain among the active ones: also one
// that has crashed and is kept, with its QEMU.
func active(state qemu.State) bool { return state != qemu.StateShutoff }
