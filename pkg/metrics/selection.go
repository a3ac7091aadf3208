package metrics

import (
	"slices"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Selection says which families of virtual machines are served.
type Selection struct {
	Groups map[string]bool // on or off; the standard holds for those not named
	Compat []string        // other exporters whose families are served too
	Node   string          // the label node of KubeVirt's families
	Limits Limits
}

// Groups lists the names of all groups, and of those that are standard.
func Groups() (all, standard []string) {
	for _, g := range vmGroups {
		all = append(all, g.name)
		if g.standard {
			standard = append(standard, g.name)
		}
	}
	return all, standard
}

// Reads says of every group whether its values are needed: because it is
// served, or because another exporter's families are made of it.
func (s Selection) Reads() map[string]bool {
	reads := make(map[string]bool)
	for _, g := range vmGroups {
		reads[g.name] = s.on(g)
	}
	for _, d := range s.dialects() {
		for _, need := range d.needs {
			reads[need] = true
		}
	}
	return reads
}

func (s Selection) on(g group) bool {
	if chosen, named := s.Groups[g.name]; named {
		return chosen
	}
	return g.standard
}

func (s Selection) groups() []group {
	var on []group
	for _, g := range vmGroups {
		if s.on(g) {
			on = append(on, g)
		}
	}
	return on
}

func (s Selection) dialects() []dialect {
	var on []dialect
	for _, d := range dialects {
		if slices.Contains(s.Compat, d.name) {
			on = append(on, d)
		}
	}
	return on
}

// selected is a Selection, made up once.
type selected struct {
	groups   []group
	dialects []dialect
	limits   Limits
	node     string
}

func (s Selection) compile() *selected {
	return &selected{s.groups(), s.dialects(), s.Limits, s.Node}
}

// appendSnapshot appends what is known about virtual machines.
func appendSnapshot(w *writer, snapshot *qemu.Snapshot, chosen *selected) {
	w.budget.reset(chosen.limits, len(snapshot.VMs))
	labelAll(w, snapshot.VMs, labelVM)
	for _, group := range chosen.groups {
		writeLabelled(w, group.families, snapshot.VMs)
	}
	for i := range chosen.dialects {
		appendDialect(w, snapshot, &chosen.dialects[i], chosen.node)
	}
	w.budget.limits = Limits{} // what follows is not about a machine
	for i := range chosen.dialects {
		write(w, chosen.dialects[i].page, []*qemu.Snapshot{snapshot}, unlabelled[*qemu.Snapshot])
	}
}
