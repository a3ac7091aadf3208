package hostnet

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Plan returns the steps from what the links are to what they shall be. What
// is ours by the originals, and wanted by nobody any more, is brought back to
// what was there before. It is pure.
func Plan(spec Spec, state State, ours reconcile.State) reconcile.Plan {
	p := &planner{
		spec: spec, state: &state, ours: ours,
		want: make(map[string]*Wanted), said: make(map[string]bool), remade: make(map[string]bool), detached: make(map[string]bool),
	}
	for i := range spec.Links {
		p.want[spec.Links[i].Name] = &spec.Links[i]
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
	spec  Spec
	state *State
	ours  reconcile.State
	plan  reconcile.Plan

	want     map[string]*Wanted
	said     map[string]bool // keys of properties that somebody wants something of
	remade   map[string]bool // links that are removed, and perhaps made anew
	detached map[string]bool // links that leave their bridge or bond
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
	original, ours := p.ours.Original(key(stepDevice, "name:"+name, ""))
	if !ours || reconcile.Same(original.Want, nil) {
		return Device{}, false
	}
	device, err := reconcile.Read[Device](original.Want)
	return device, err == nil
}

// foresee decides which links have to go: those of ours that nobody wants, and
// those that cannot become what is wanted of them, with all that lies on them.
func (p *planner) foresee() {
	for _, original := range p.ours.Originals {
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

// items brings addresses and routes of links that stay to what is wanted.
func (p *planner) items() {
	for _, name := range p.names() {
		w := p.want[name]
		link, stays := p.stays(name)
		if !stays || w.Device == nil {
			continue
		}
		routes := p.state.RoutesOf(name)
		dropAddresses := p.droppedAddresses(w, link)
		var dropRoutes []string
		for _, route := range routes {
			if !slices.Contains(w.Routes, route) && p.itemOurs(stepRoute, w, route) || p.flushed(route, dropAddresses) {
				dropRoutes = append(dropRoutes, route)
			}
		}
		for _, change := range []struct {
			kind  string
			items []string
			add   bool
		}{
			{stepRoute, dropRoutes, false},
			{stepAddress, dropAddresses, false},
			{stepAddress, without(w.Addresses, without(link.Addresses, dropAddresses)), true},
			{stepRoute, without(w.Routes, without(routes, dropRoutes)), true},
		} {
			for _, item := range change.items {
				p.add(itemStep(change.kind, on(w), item, change.add))
			}
		}
	}
}

// itemOurs reports whether we have given a link an address, a route or an
// alternative name.
func (p *planner) itemOurs(kind string, w *Wanted, item string) bool {
	if original, ours := p.ours.Original(key(kind, w.Identity, item)); ours {
		return reconcile.Same(original.Want, reconcile.Value(true))
	}
	made, _ := p.madeByUs(w.Name)
	return slices.Contains(map[string][]string{stepRoute: made.Routes, stepAddress: made.Addresses, stepAltname: made.Altnames}[kind], item)
}

// droppedAddresses lists the addresses that are not wanted any more, and those
// of the same networks: with the first of a network, the kernel removes the others.
func (p *planner) droppedAddresses(w *Wanted, link *Link) []string {
	networks := make(map[netip.Prefix]bool)
	for _, address := range link.Addresses {
		if !slices.Contains(w.Addresses, address) && p.itemOurs(stepAddress, w, address) {
			networks[network(address)] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(link.Addresses), func(a string) bool { return !networks[network(a)] })
}

func network(address string) netip.Prefix {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix.Masked()
}

// flushed reports whether a route may go with addresses: with the last address
// of a link, the kernel removes its routes.
func (p *planner) flushed(route string, addresses []string) bool {
	return slices.ContainsFunc(addresses, func(a string) bool { return network(a).Addr().Is4() == network(route).Addr().Is4() })
}

func without(of, less []string) []string {
	return slices.DeleteFunc(slices.Clone(of), func(item string) bool { return slices.Contains(less, item) })
}

// detach takes links out of bridges and bonds that they shall not be in.
func (p *planner) detach() {
	for i := range p.state.Links {
		link := &p.state.Links[i]
		if link.Master == "" {
			continue
		}
		w := p.want[link.Name]
		original, ours := p.ours.Original(key(stepMaster, link.Identity(), ""))
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
		if before, err := reconcile.Read[Attachment](original.Was); err == nil && (w == nil || w.Master == "") {
			want = before
		}
		if w != nil {
			want.Up = true
		}
		p.said[original.Key()] = true
		p.detached[link.Name] = true
		p.add(masterStep(subject{link.Name, link.Identity(), policy}, was, want, false))
	}
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

// inBond reports whether a link is, or will be, a port of a bond, which gives
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
	return found && master.Kind == KindBond
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
	if original, ours := p.ours.Original(key(stepMTU, link.Identity(), "")); ours {
		was, err := reconcile.Read[int](original.Was)
		want, err2 := reconcile.Read[int](original.Want)
		if err == nil && err2 == nil && want == link.MTU {
			return was
		}
	}
	return link.MTU
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
		_, ours := p.ours.Original(k)
		if w == nil && !ours {
			continue
		}
		target := subject{link.Name, link.Identity(), ""}
		if w != nil {
			target.policy = w.Policy
		}
		if w != nil && (w.MTU != 0 || w.Device != nil && w.Device.Parent != "") || p.inBond(link.Name) {
			p.said[k] = true
		}
		if p.inBond(link.Name) {
			continue
		}
		want := p.final(link.Name)
		if want != 0 && (want > link.MTU) == raise && want != link.MTU {
			p.said[k] = true
			p.add(mtuStep(target, link.MTU, want, link.Physical() && link.Up))
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
		if !link.Up && !p.inBond(name) && !p.detached[name] {
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
		was.Up = link.Up || !p.inBond(w.Name)
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

// restore brings back what was there before of all that nobody wants otherwise.
func (p *planner) restore() {
	for _, kind := range []string{stepRoute, stepAddress, stepMaster, stepOptions, stepMTU, stepUp} {
		p.restoreKind(kind)
	}
}

func (p *planner) restoreKind(kind string) {
	for _, original := range slices.Backward(p.ours.Originals) {
		k := original.Key()
		if original.Kind != kind || p.said[k] {
			continue
		}
		p.said[k] = true
		link, exists := p.state.Identified(original.Identity)
		switch {
		case exists && p.ownedWhole(link.Name): // its policy says all of it
		case exists && !p.remade[link.Name]:
			p.restoreOne(original, link)
		case !exists && strings.HasPrefix(original.Identity, "name:"):
			p.plan.Forget = append(p.plan.Forget, k) // it went with the link
		}
	}
}

// ownedWhole reports whether we have made a link: then there was nothing
// before that could be brought back.
func (p *planner) ownedWhole(name string) bool {
	_, ours := p.madeByUs(name)
	return ours
}

func (p *planner) restoreOne(original reconcile.Step, link *Link) {
	now := p.state.value(original.Kind, link, original.Item)
	switch {
	case same(original.Kind, now, original.Was):
		p.plan.Forget = append(p.plan.Forget, original.Key())
		return
	case !same(original.Kind, now, original.Want):
		p.note("%s of %s is %s, and not what we made it: it is left alone", strings.TrimPrefix(original.Kind, WriterName+"/"), link.Name, now)
		p.plan.Forget = append(p.plan.Forget, original.Key())
		return
	}
	target := subject{link.Name, link.Identity(), ""}
	switch original.Kind {
	case stepUp:
		if same(stepUp, original.Was, reconcile.Value(Running{Up: true})) {
			p.add(upStep(target))
		} else {
			p.add(downStep(target, p.state.running(link)))
		}
	case stepAltname, stepAddress, stepRoute:
		p.add(itemStep(original.Kind, target, original.Item, reconcile.Same(original.Was, reconcile.Value(true))))
	case stepOptions:
		s := step(stepOptions, target, "", now, original.Was, "change %s back to %s", link.Name, original.Was)
		s.Disruption = reconcile.LinkFlap
		p.add(s)
	case stepMaster:
		was, _ := reconcile.Read[Attachment](now)             // made by value
		want, err := reconcile.Read[Attachment](original.Was) // read from the disk
		if err != nil {
			p.note("%s: %v", original.Key(), err)
			return
		}
		p.add(masterStep(target, was, want, false))
	}
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
