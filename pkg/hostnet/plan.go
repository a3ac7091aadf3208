package hostnet

import (
	"fmt"
	"maps"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Plan returns the steps from what the links are to what they shall be. What
// is ours by the originals, and wanted by nobody any more, is brought back to
// what was there before. It is pure.
func Plan(spec Spec, state State, ours reconcile.State) reconcile.Plan {
	p := &planner{
		spec: spec, state: &state, byKey: make(map[string]reconcile.Step),
		want: make(map[string]*Wanted), said: make(map[string]bool), remade: make(map[string]bool), detached: make(map[string]bool), freed: make(map[string]Attachment),
	}
	for i := range spec.Links {
		p.want[spec.Links[i].Name] = &spec.Links[i]
	}
	for _, original := range ours.Originals {
		if original.Writer() != WriterName {
			continue
		}
		p.originals = append(p.originals, original)
		if _, known := p.byKey[original.Key()]; !known {
			p.byKey[original.Key()] = original
		}
	}
	p.foresee()
	p.detach()
	p.remove()
	p.altnames()
	p.mtus(true)
	p.ups()
	p.build()
	p.mtus(false)
	p.items()
	p.restore()
	p.judge()
	p.noteManagers()
	return p.plan
}

type planner struct {
	spec      Spec
	state     *State
	originals []reconcile.Step // of links, in the order in which they became ours
	byKey     map[string]reconcile.Step
	plan      reconcile.Plan

	want     map[string]*Wanted
	said     map[string]bool       // keys of properties that somebody wants something of
	remade   map[string]bool       // links that are removed, and perhaps made anew
	detached map[string]bool       // links that leave their bridge or bond
	freed    map[string]Attachment // of those: what is left of them when they have left a bond
	built    map[string]bool
}

func (p *planner) add(s reconcile.Step) { p.plan.Steps = append(p.plan.Steps, s) }

func (p *planner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}

func (p *planner) refuse(r reconcile.Refusal) { p.plan.Refusals = append(p.plan.Refusals, r) }

func on(w *Wanted) subject { return subject{w.Name, w.Identity, w.Policy} }

func key(kind, identity, item string) string {
	return reconcile.Step{Kind: kind, Identity: identity, Item: item}.Key()
}

// madeByUs returns how we made a link, if we did.
func (p *planner) madeByUs(name string) (Device, bool) {
	original, ours := p.byKey[key(stepDevice, "name:"+name, "")]
	if !ours || reconcile.Same(original.Want, nil) {
		return Device{}, false
	}
	device, err := reconcile.Read[Device](original.Want)
	return device, err == nil
}

// foresee decides which links have to go: those of ours that nobody wants, and
// those that cannot become what is wanted of them, with all that lies on them.
func (p *planner) foresee() {
	for _, original := range p.originals {
		if original.Kind != stepDevice {
			continue
		}
		if w := p.want[original.Target]; w != nil && w.Device != nil {
			continue
		}
		link, exists := p.state.Link(original.Target)
		device, readable := p.madeByUs(original.Target)
		switch {
		case !exists || !readable:
			p.plan.Forget = append(p.plan.Forget, original.Key())
		case !p.state.device(link).alike(device):
			p.note("%s is not what we made of it any more: it is left alone", link.Name)
			p.plan.Forget = append(p.plan.Forget, original.Key())
		default:
			p.remade[link.Name] = true
		}
	}
	for _, name := range p.names() {
		w := p.want[name]
		link, exists := p.state.Link(name)
		if w.Device == nil || !exists || p.state.device(link).alike(*w.Device) {
			continue
		}
		if _, ours := p.madeByUs(name); !ours {
			p.refuse(reconcile.Refusal{
				Guard: "foreign", Target: name, Policy: w.Policy, Message: "there is a link of this name that somebody else has made; choose another name, or remove it",
				Evidence: []string{fmt.Sprintf("%s is a %s", name, orCard(link.Kind))},
			})
			continue
		}
		p.remade[name] = true
	}
	for grown := true; grown; {
		grown = false
		for i := range p.state.Links {
			l := &p.state.Links[i]
			if _, ours := p.madeByUs(l.Name); ours && p.remade[l.Parent] && !p.remade[l.Name] {
				p.remade[l.Name], grown = true, true
			}
		}
	}
}

func orCard(kind string) string {
	if kind == "" {
		return "network card"
	}
	return describeKind(kind)
}

// names lists the wanted links in the order of the policies.
func (p *planner) names() []string {
	names := make([]string, 0, len(p.spec.Links))
	for i := range p.spec.Links {
		names = append(names, p.spec.Links[i].Name)
	}
	return names
}

// stays returns a wanted link that exists and is not made anew.
func (p *planner) stays(name string) (*Link, bool) {
	link, exists := p.state.Link(name)
	return link, exists && !p.remade[name]
}

// detach takes links out of bridges and bonds that they shall not be in.
func (p *planner) detach() {
	for i := range p.state.Links {
		link := &p.state.Links[i]
		if link.Master == "" {
			continue
		}
		w := p.want[link.Name]
		original, ours := p.byKey[key(stepMaster, link.Identity(), "")]
		staying := w != nil && w.Master == link.Master && !p.remade[link.Master] && !p.remade[link.Name]
		if staying || !ours && !p.remade[link.Master] && (w == nil || w.Master == "") {
			continue
		}
		if !ours {
			continue // judge says that it is somebody else's
		}
		policy := ""
		if w != nil {
			policy = w.Policy
		}
		was := Attachment{Master: link.Master, VLANs: link.PortVLANs, Up: link.Up}
		want := Attachment{Up: link.Up}
		before, err := reconcile.Read[Attachment](original.Was)
		if master, found := p.state.Link(link.Master); err == nil && found && master.Kind == KindBond {
			want.Up, want.MTU = before.Up, before.MTU
			p.freed[link.Name] = want
		}
		if err == nil && (w == nil || w.Master == "") {
			want.Master, want.VLANs = before.Master, before.VLANs
		}
		p.said[original.Key()] = true
		p.detached[link.Name] = true
		p.add(masterStep(subject{link.Name, link.Identity(), policy}, was, want, false))
	}
}

// running and mtu are what a link is when the steps that free it are made.
func (p *planner) running(link *Link) bool {
	if freed, left := p.freed[link.Name]; left {
		return freed.Up
	}
	return link.Up
}

func (p *planner) mtu(link *Link) int {
	if freed, left := p.freed[link.Name]; left && freed.MTU != 0 {
		return freed.MTU
	}
	return link.MTU
}

// remove deletes links, the last made first: what lies on others was made after them.
func (p *planner) remove() {
	for _, link := range slices.Backward(p.state.Links) {
		if !p.remade[link.Name] {
			continue
		}
		policy := ""
		if w := p.want[link.Name]; w != nil {
			policy = w.Policy
		}
		p.add(deleteStep(subject{link.Name, "name:" + link.Name, policy}, p.state.device(&link)))
	}
}

func (p *planner) altnames() {
	for _, removing := range []bool{true, false} {
		for _, name := range p.names() {
			w := p.want[name]
			link, stays := p.stays(name)
			if !stays {
				continue
			}
			for _, altname := range link.Altnames {
				if removing && p.itemOurs(stepAltname, w, altname) && !slices.Contains(w.Altnames, altname) {
					p.said[key(stepAltname, w.Identity, altname)] = true
					p.add(itemStep(stepAltname, on(w), altname, false))
				}
			}
			for _, altname := range w.Altnames {
				p.said[key(stepAltname, w.Identity, altname)] = true
				if !removing && !slices.Contains(link.Altnames, altname) {
					p.add(itemStep(stepAltname, on(w), altname, true))
				}
			}
		}
		if removing {
			p.restoreKind(stepAltname)
		}
	}
}

// inBond reports whether a link is, or will be, a port of a bond of ours, which gives
// its ports its own MTU and takes them up.
func (p *planner) inBond(name string) bool {
	if w := p.want[name]; w != nil && w.MasterKind == KindBond {
		return true
	}
	link, exists := p.state.Link(name)
	if !exists || link.Master == "" || p.detached[name] {
		return false
	}
	master, found := p.state.Link(link.Master)
	_, ours := p.byKey[key(stepMaster, link.Identity(), "")]
	return found && ours && master.Kind == KindBond
}

// final returns the MTU that a link shall have in the end, 0 when it is left
// to the kernel.
func (p *planner) final(name string) int {
	w, link := p.want[name], (*Link)(nil)
	if l, stays := p.stays(name); stays {
		link = l
	}
	switch {
	case w != nil && w.MTU != 0:
		return w.MTU
	case w != nil && w.Device != nil && w.Device.Parent != "":
		return p.final(w.Device.Parent)
	case link == nil:
		return 0
	}
	if original, ours := p.byKey[key(stepMTU, link.Identity(), "")]; ours {
		was, err := reconcile.Read[int](original.Was)
		want, err2 := reconcile.Read[int](original.Want)
		if err == nil && err2 == nil && want == p.mtu(link) {
			return was
		}
	}
	return p.mtu(link)
}

// mtus raises MTUs, parents before what lies on them, or lowers them, in the
// opposite order: the kernel lets none be larger than the one below.
func (p *planner) mtus(raise bool) {
	links := slices.Clone(p.state.Links)
	if !raise {
		slices.Reverse(links)
	}
	for i := range links {
		link := &links[i]
		w := p.want[link.Name]
		if p.remade[link.Name] {
			continue
		}
		k := key(stepMTU, link.Identity(), "")
		_, ours := p.byKey[k]
		if w == nil && !ours {
			continue
		}
		target := subject{link.Name, link.Identity(), ""}
		if w != nil {
			target.policy = w.Policy
		}
		entering := p.inBond(link.Name) && (link.Master == "" || p.detached[link.Name])
		if w != nil && (w.MTU != 0 || w.Device != nil && w.Device.Parent != "") || p.inBond(link.Name) && !entering {
			p.said[k] = true
		}
		if p.inBond(link.Name) && !entering {
			continue
		}
		have, want := p.mtu(link), p.final(link.Name)
		if want != 0 && want != have && (entering && raise || !entering && (want > have) == raise) {
			p.said[k] = true
			p.add(mtuStep(target, have, want, link.Physical() && link.Up))
		}
	}
}

// ups sets those links up that exist. A card that is to be a port of a bond is
// set up by the bond.
func (p *planner) ups() {
	for _, name := range p.names() {
		w := p.want[name]
		link, stays := p.stays(name)
		if !stays {
			continue
		}
		p.said[key(stepUp, w.Identity, "")] = true
		if !p.running(link) && !p.inBond(name) {
			p.add(upStep(on(w)))
		}
	}
}

// build makes what is missing, each after what it lies on, and attaches the
// ports of bridges and bonds.
func (p *planner) build() {
	p.built = make(map[string]bool)
	for _, name := range p.names() {
		p.buildOne(name, nil)
	}
}

func (p *planner) buildOne(name string, under []string) {
	w := p.want[name]
	if w == nil || p.built[name] || slices.Contains(under, name) {
		return
	}
	under = append(under, name)
	if w.Device == nil {
		p.built[name] = true
		return
	}
	p.buildOne(w.Device.Parent, under)
	ports := p.portsOf(name)
	for _, port := range ports {
		p.buildOne(port, under)
	}
	p.built[name] = true
	link, stays := p.stays(name)
	if !stays {
		device := *w.Device
		device.MTU, device.Up = p.final(name), true
		device.Altnames, device.Addresses, device.Routes = w.Altnames, w.Addresses, w.Routes
		p.add(step[any](stepDevice, on(w), "", nil, device, "%s", describeDevice(name, device)))
	} else if have, want := optionsOf(link.Kind, link.VLANFiltering, link.Bond), optionsOf(w.Device.Kind, w.Device.VLANFiltering, w.Device.Bond); want != nil {
		p.said[key(stepOptions, w.Identity, "")] = true
		if !reconcile.Same(reconcile.Value(have), reconcile.Value(want)) {
			s := step(stepOptions, on(w), "", have, want, "change %s %s to %s", describeKind(link.Kind), name, reconcile.Value(want))
			s.Disruption = reconcile.LinkFlap
			p.add(s)
		}
	}
	p.said[key(stepDevice, w.Identity, "")] = true
	for _, port := range ports {
		p.attach(p.want[port], w)
	}
}

func (p *planner) portsOf(master string) []string {
	var ports []string
	for _, name := range p.names() {
		if p.want[name].Master == master {
			ports = append(ports, name)
		}
	}
	return ports
}

func (p *planner) attach(w, master *Wanted) {
	p.said[key(stepMaster, w.Identity, "")] = true
	want := Attachment{Master: master.Name, VLANs: w.VLANs, Up: true}
	was := Attachment{Up: true}
	if link, stays := p.stays(w.Name); stays {
		was.Up = p.running(link) || !p.inBond(w.Name)
		if p.inBond(w.Name) {
			was.MTU = p.final(w.Name)
		}
		if link.Master != "" && !p.detached[w.Name] {
			was = Attachment{Master: link.Master, VLANs: link.PortVLANs, Up: link.Up}
		}
	}
	if was.Master == want.Master && slices.Equal(was.VLANs, want.VLANs) {
		return
	}
	want.Up = was.Up
	p.add(masterStep(on(w), was, want, w.MasterKind == KindBond))
}

// noteManagers warns of programs that may change back what is changed.
func (p *planner) noteManagers() {
	noted := make(map[string]string)
	for _, s := range p.plan.Steps {
		if link, exists := p.state.Link(s.Target); exists && s.Kind != stepAltname {
			for _, manager := range link.Managers {
				noted[link.Name+manager.Name] = fmt.Sprintf("%s manages %s (%s) and may change it back: make it leave this link alone", manager.Name, link.Name, manager.Source)
			}
		}
	}
	for _, k := range slices.Sorted(maps.Keys(noted)) {
		p.plan.Notes = append(p.plan.Notes, noted[k])
	}
}
