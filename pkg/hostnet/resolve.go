package hostnet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Resolve merges the policies of a node, and finds the card of each interface.
// Where two ask for different things, the higher priority is followed; at the
// same priority both are refused.
func Resolve(policies []v1alpha1.HostNetwork, state *State) (Spec, []reconcile.Refusal) {
	r := &resolver{state: state, links: make(map[string]*claimed)}
	inOrder := slices.Clone(policies)
	slices.SortStableFunc(inOrder, func(a, b v1alpha1.HostNetwork) int {
		return cmp.Or(cmp.Compare(b.Spec.Priority, a.Spec.Priority), cmp.Compare(a.Name, b.Name))
	})
	for i := range inOrder {
		r.policy(&inOrder[i])
	}
	spec := Spec{Cards: r.cards}
	for _, name := range r.order {
		spec.Links = append(spec.Links, r.links[name].Wanted)
	}
	return spec, r.refusals
}

// claimed is a wanted link, and which policy has said what of it.
type claimed struct {
	Wanted
	by       map[string]string // by field: the policy
	priority map[string]int
}

type resolver struct {
	state    *State
	links    map[string]*claimed
	order    []string
	cards    []Card
	refusals []reconcile.Refusal
}

func (r *resolver) refuse(guard, target, policy, format string, args ...any) {
	r.refusals = append(r.refusals, reconcile.Refusal{Guard: guard, Target: target, Policy: policy, Message: fmt.Sprintf(format, args...)})
}

func (r *resolver) policy(p *v1alpha1.HostNetwork) {
	names := make(map[string]string) // of the policy's interfaces: the kernel's names
	for i := range p.Spec.Interfaces {
		in := &p.Spec.Interfaces[i]
		if in.Bond != nil {
			names[in.Name] = in.Bond.Name
			continue
		}
		link := r.card(p, in)
		if link == nil {
			continue
		}
		names[in.Name] = link.Name
		address := ""
		if link.PCI != nil {
			address = link.PCI.Address
		}
		r.cards = append(r.cards, Card{Policy: p.Name, Interface: *in, Link: link.Name, PCIAddress: address})
	}
	for i := range p.Spec.Interfaces {
		if in := &p.Spec.Interfaces[i]; names[in.Name] != "" {
			r.iface(p, in, names)
		}
	}
}

// card finds the one card that matches.
func (r *resolver) card(p *v1alpha1.HostNetwork, in *v1alpha1.Interface) *Link {
	var found []*Link
	for i := range r.state.Links {
		if link := &r.state.Links[i]; !link.Loopback && stacked(link) == "" && matches(link, *in.Match) {
			found = append(found, link)
		}
	}
	switch len(found) {
	case 1:
		return found[0]
	case 0:
		r.refuse("match", in.Name, p.Name, "no network card of this host matches %s", describe(*in.Match))
	default:
		var all []string
		for _, link := range found {
			all = append(all, link.Name+" ("+link.Identity()+")")
		}
		r.refuse("match", in.Name, p.Name, "%d network cards match %s: %s; say more, so that one is left", len(found), describe(*in.Match), strings.Join(all, ", "))
	}
	return nil
}

// stacked returns the kind of a link that software has made on top of others.
func stacked(l *Link) string {
	switch l.Kind {
	case KindVLAN, KindBridge, KindBond, KindMacvlan, KindMacvtap, "ipvlan", "ipvtap", "tun", "vxlan", "openvswitch":
		return l.Kind
	}
	return ""
}

func matches(l *Link, m v1alpha1.Match) bool {
	pci := PCI{}
	if l.PCI != nil {
		pci = *l.PCI
	}
	equal := func(want, have string) bool { return want == "" || want == have }
	return equal(m.PCIAddress, pci.Address) && equal(m.Driver, pci.Driver) && equal(m.Vendor, pci.Vendor) && equal(m.Device, pci.Device) &&
		equal(m.PermanentMAC, l.PermanentMAC) && (m.Name == "" || m.Name == l.Name || slices.Contains(l.Altnames, m.Name))
}

func describe(m v1alpha1.Match) string {
	var words []string
	for _, field := range []struct{ name, value string }{
		{"pciAddress", m.PCIAddress}, {"permanentMAC", m.PermanentMAC}, {"driver", m.Driver}, {"vendor", m.Vendor}, {"device", m.Device}, {"name", m.Name},
	} {
		if field.value != "" {
			words = append(words, field.name+" "+field.value)
		}
	}
	return strings.Join(words, ", ")
}

// iface says what an interface wants of its card or bond, and of what is built on it.
func (r *resolver) iface(p *v1alpha1.HostNetwork, in *v1alpha1.Interface, names map[string]string) {
	name := names[in.Name]
	link := r.claim(p, name)
	if link == nil {
		return
	}
	if in.Name != name {
		link.Altnames = sorted(append(link.Altnames, in.Name))
	}
	if in.MTU != 0 {
		set(r, p, link, "mtu", &link.MTU, in.MTU)
	}
	if in.Bond != nil {
		b := in.Bond
		device := Device{Kind: KindBond, Bond: &Bonding{Mode: b.Mode, MonitorInterval: b.MonitorInterval, LACPRate: b.LACPRate, TransmitHashPolicy: b.TransmitHashPolicy}}
		r.make(p, link, device)
		for _, port := range b.Ports {
			if card := names[port]; card != "" {
				r.enslave(p, card, name, KindBond, nil)
			}
		}
	}
	for _, vlan := range in.VLANs {
		if on := r.claim(p, vlan.Name); on != nil {
			r.make(p, on, Device{Kind: KindVLAN, Parent: name, VLANID: vlan.ID, Protocol: vlan.Protocol})
			if vlan.MTU != 0 {
				set(r, p, on, "mtu", &on.MTU, vlan.MTU)
			}
		}
	}
	if b := in.Bridge; b != nil {
		if bridge := r.claim(p, b.Name); bridge != nil {
			r.make(p, bridge, Device{Kind: KindBridge, VLANFiltering: b.VLANFiltering})
			var ids []int
			for _, text := range b.VLANs {
				first, last, _ := v1alpha1.ParseRange(text, 1, 4094) // validated
				for id := first; id <= last; id++ {
					ids = append(ids, id)
				}
			}
			r.enslave(p, name, b.Name, KindBridge, ranges(ids))
		}
	}
	if s := in.HostShim; s != nil {
		parent := s.Parent
		if parent == in.Name {
			parent = name
		}
		if shim := r.claim(p, s.Name); shim != nil {
			r.make(p, shim, Device{Kind: KindMacvlan, Parent: parent, Mode: "bridge"})
			shim.Addresses = sorted(append(shim.Addresses, s.Addresses...))
			shim.Routes = sorted(append(shim.Routes, s.Routes...))
		}
	}
}

// claim returns what is wanted of a link so far.
func (r *resolver) claim(p *v1alpha1.HostNetwork, name string) *claimed {
	if link, known := r.links[name]; known {
		return link
	}
	link := &claimed{Wanted: Wanted{Name: name, Policy: p.Name, Identity: "name:" + name}, by: make(map[string]string), priority: make(map[string]int)}
	if have, found := r.state.Link(name); found {
		link.Identity = have.Identity()
	}
	r.links[name] = link
	r.order = append(r.order, name)
	return link
}

// set lets a policy say something of a link, unless a stronger one has said
// something else. Policies come in order of priority.
func set[T comparable](r *resolver, p *v1alpha1.HostNetwork, link *claimed, field string, to *T, value T) bool {
	before, said := link.by[field]
	if !said {
		link.by[field], link.priority[field] = p.Name, p.Spec.Priority
		*to = value
		return true
	}
	if *to == value {
		return true
	}
	if link.priority[field] == p.Spec.Priority {
		r.refuse("conflict", link.Name, p.Name, "the policies %s and %s want its %s to be %v and %v, with the same priority: change one, or give them priorities",
			before, p.Name, field, *to, value)
	}
	return false
}

// make says how a link is made. Two policies may share a link that they want
// made in the same way.
func (r *resolver) make(p *v1alpha1.HostNetwork, link *claimed, device Device) {
	text := string(reconcile.Value(device))
	var have string
	if link.Device != nil {
		have = string(reconcile.Value(*link.Device))
	}
	if set(r, p, link, "kind", &have, text) && link.Device == nil {
		link.Device, link.Policy = &device, p.Name
	}
}

func (r *resolver) enslave(p *v1alpha1.HostNetwork, name, master, kind string, vlans []string) {
	link := r.claim(p, name)
	if !set(r, p, link, "master", &link.Master, master) {
		return
	}
	link.MasterKind = kind
	have := strings.Join(link.VLANs, " ")
	if set(r, p, link, "vlans", &have, strings.Join(vlans, " ")) {
		link.VLANs = vlans
	}
}
