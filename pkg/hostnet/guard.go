package hostnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// value is what a property has now, as steps write it.
func (s *State) value(kind string, link *Link, item string) json.RawMessage {
	switch kind {
	case stepDevice:
		return reconcile.Value(s.device(link))
	case stepOptions:
		return reconcile.Value(optionsOf(link.Kind, link.VLANFiltering, link.Bond))
	case stepAltname:
		return reconcile.Value(slices.Contains(link.Altnames, item))
	case stepMTU:
		return reconcile.Value(link.MTU)
	case stepUp:
		return reconcile.Value(Running{Up: link.Up})
	case stepMaster:
		return reconcile.Value(Attachment{Master: link.Master, VLANs: link.PortVLANs, Up: link.Up})
	case stepAddress:
		return reconcile.Value(slices.Contains(link.Addresses, item))
	case stepRoute:
		return reconcile.Value(slices.Contains(s.RoutesOf(link.Name), item))
	}
	return json.RawMessage("null")
}

// judge refuses the steps of a plan that a guard would stop anyway.
func (p *planner) judge() {
	g := &guard{state: p.state, uplink: p.state.Uplink(), mine: portsOfOurs(p.originals), gone: make(map[string]bool), loose: make(map[string]bool), shrunk: make(map[string]int)}
	for _, s := range p.plan.Steps {
		if refusal := g.forbids(s); refusal != nil {
			p.refuse(*refusal)
		}
		// The steps after this one find it made.
		switch {
		case s.Kind == stepDevice && reconcile.Same(s.Want, nil):
			g.gone[s.Target] = true
		case s.Kind == stepMaster:
			g.loose[s.Target] = true
		case s.Kind == stepMTU:
			g.shrunk[s.Target], _ = reconcile.Read[int](s.Want) // made by value
		}
	}
	for _, name := range p.names() {
		w := p.want[name]
		if parent := parentOf(w); parent != "" {
			p.judgeChild(w, parent)
		}
		link, exists := p.state.Link(name)
		if exists && w.Master != "" && link.Master != "" && link.Master != w.Master && !p.detached[name] {
			p.refuse(reconcile.Refusal{
				Guard: "foreign", Target: name, Policy: w.Policy, Message: "it is a port of " + link.Master + ", which somebody else has made it; take it out there first",
				Evidence: []string{"master " + link.Master},
			})
		}
	}
}

func parentOf(w *Wanted) string {
	if w.Device == nil {
		return ""
	}
	return w.Device.Parent
}

// judgeChild looks at what the kernel would say of a link on another.
func (p *planner) judgeChild(w *Wanted, parent string) {
	refuse := func(guard, format string, args ...any) {
		p.refuse(reconcile.Refusal{Guard: guard, Target: w.Name, Policy: w.Policy, Message: fmt.Sprintf(format, args...)})
	}
	if below := p.final(parent); below != 0 && w.MTU > below {
		refuse("mtu", "its MTU %d is more than that of %s below, %d", w.MTU, parent, below)
	}
	for i := range p.state.Links {
		l := &p.state.Links[i]
		if l.Parent != parent || l.Name == w.Name || p.remade[l.Name] {
			continue
		}
		if l.Kind == KindVLAN && w.Device.Kind == KindVLAN && l.VLANID == w.Device.VLANID && l.Protocol == w.Device.Protocol {
			refuse("foreign", "VLAN %d of %s is there already, as %s", l.VLANID, parent, l.Name)
		}
		if w.Device.Kind == KindMacvlan && l.Mode == "passthru" {
			refuse("macvlan", "%s has %s for itself alone (passthru)", l.Name, parent)
		}
	}
	if w.Device.Kind != KindMacvlan {
		return
	}
	master := ""
	if on := p.want[parent]; on != nil {
		master = on.Master
	}
	if link, stays := p.stays(parent); stays && master == "" && !p.detached[parent] {
		master = link.Master
	}
	if master != "" {
		refuse("macvlan", "%s is a port of %s, and so cannot be the parent of a macvlan interface; use the bridge, or a VLAN", parent, master)
	}
}

// portsOfOurs lists the links that we have made ports of others.
func portsOfOurs(originals []reconcile.Step) map[string]bool {
	mine := make(map[string]bool)
	for _, original := range originals {
		if original.Kind == stepMaster {
			mine[original.Target] = true
		}
	}
	return mine
}

// guard judges single steps on a state.
type guard struct {
	state  *State
	uplink map[string]string
	mine   map[string]bool // links that we have made ports
	gone   map[string]bool // links that earlier steps remove
	loose  map[string]bool // links that earlier steps attach elsewhere
	shrunk map[string]int  // MTUs that earlier steps set
}

// forbids returns why a step must not be made, nil when it may.
func (g *guard) forbids(s reconcile.Step) *reconcile.Refusal {
	refuse := func(guard, message string, evidence ...string) *reconcile.Refusal {
		return &reconcile.Refusal{Guard: guard, Target: s.Target, Policy: s.Policy, Message: s.Text + ": " + message, Evidence: evidence}
	}
	if reason, member := g.uplink[s.Target]; member && s.Kind != stepAltname {
		return refuse("uplink", "the node is reached through it", reason)
	}
	switch s.Kind {
	case stepMaster:
		want, err := reconcile.Read[Attachment](s.Want)
		if err != nil {
			return refuse("unreadable", err.Error())
		}
		if reason, member := g.uplink[want.Master]; member {
			return refuse("uplink", "the node is reached through "+want.Master, reason)
		}
		return g.forbidsMaster(s, refuse)
	case stepDevice:
		if reconcile.Same(s.Want, nil) {
			return g.forbidsDelete(s, refuse)
		}
		device, err := reconcile.Read[Device](s.Want)
		if err != nil {
			return refuse("unreadable", err.Error())
		}
		for _, prefix := range slices.Concat(device.Addresses, device.Routes) {
			if evidence := g.covers(prefix); evidence != "" {
				return refuse("uplink", prefix+" would draw traffic away from the uplink", evidence)
			}
		}
	case stepAddress, stepRoute:
		if evidence := g.covers(s.Item); evidence != "" && reconcile.Same(s.Want, reconcile.Value(true)) {
			return refuse("uplink", "it would draw traffic away from the uplink", evidence)
		}
	case stepUp:
		if users := g.users(s.Target); same(stepUp, s.Want, reconcile.Value(Running{})) && users != nil {
			return refuse("in-use", "others use it", users...)
		}
	case stepMTU:
		want, err := reconcile.Read[int](s.Want)
		if err != nil {
			return refuse("unreadable", err.Error())
		}
		if larger := g.larger(s.Target, want); larger != nil {
			return refuse("in-use", "it would shrink what lies on it", larger...)
		}
	}
	return nil
}

type refuser func(guard, message string, evidence ...string) *reconcile.Refusal

func (g *guard) forbidsDelete(s reconcile.Step, refuse refuser) *reconcile.Refusal {
	users := g.users(s.Target)
	link, exists := g.state.Link(s.Target)
	if device, err := reconcile.Read[Device](s.Was); err == nil && exists {
		for _, address := range link.Addresses {
			if !slices.Contains(device.Addresses, address) {
				users = append(users, "the host has "+address+" there")
			}
		}
	}
	if users != nil {
		return refuse("in-use", "others use it", users...)
	}
	return nil
}

func (g *guard) forbidsMaster(s reconcile.Step, refuse refuser) *reconcile.Refusal {
	was, err := reconcile.Read[Attachment](s.Was)
	want, err2 := reconcile.Read[Attachment](s.Want)
	if err != nil || err2 != nil {
		return refuse("unreadable", "its values cannot be read")
	}
	link, exists := g.state.Link(s.Target)
	if !exists {
		return nil
	}
	if was.Master != "" && want.Master != was.Master {
		if users := g.portsOf(was.Master, s.Target); users != nil {
			return refuse("in-use", "others would lose their way out", users...)
		}
	}
	if want.Master == "" || want.Master == was.Master {
		return nil
	}
	var users []string
	for _, address := range link.Addresses {
		users = append(users, "the host has "+address+" there")
	}
	for _, route := range g.state.RoutesOf(link.Name) {
		users = append(users, "the host reaches "+route+" through it")
	}
	if users != nil {
		return refuse("in-use", "the host itself uses it, and would not any more", users...)
	}
	for i := range g.state.Links {
		l := &g.state.Links[i]
		if l.Parent == link.Name && !g.gone[l.Name] && (l.Kind == KindMacvlan || l.Kind == KindMacvtap) {
			return refuse("macvlan", "the parent of a macvlan interface cannot be a port", l.Kind+" "+l.Name+" lies on it")
		}
	}
	for _, away := range link.Away {
		return refuse("macvlan", "the parent of a macvlan interface cannot be a port", describeAway(away))
	}
	return nil
}

// users lists who would be hit if a link went.
func (g *guard) users(name string) []string {
	var users []string
	for i := range g.state.Links {
		l := &g.state.Links[i]
		if l.Parent == name && !g.gone[l.Name] {
			users = append(users, fmt.Sprintf("%s %s lies on it", describeKind(l.Kind), l.Name))
		}
	}
	users = append(users, g.portsOf(name, "")...)
	if link, exists := g.state.Link(name); exists {
		for _, away := range link.Away {
			users = append(users, describeAway(away))
		}
	}
	return append(users, g.state.Blind...)
}

// portsOf lists the ports of a bridge or bond, less one and those of ours.
func (g *guard) portsOf(master, except string) []string {
	var ports []string
	for i := range g.state.Links {
		l := &g.state.Links[i]
		if l.Master == master && l.Name != except && !g.gone[l.Name] && !g.loose[l.Name] && !g.mine[l.Name] {
			ports = append(ports, l.Name+" is a port of "+master)
		}
	}
	return ports
}

// larger lists those that lie on a link and have a larger MTU than it shall
// have: the kernel would cut them down, in every network namespace.
func (g *guard) larger(name string, mtu int) []string {
	var all []string
	link, exists := g.state.Link(name)
	if !exists || mtu >= link.MTU {
		return nil
	}
	for i := range g.state.Links {
		l := &g.state.Links[i]
		have := l.MTU
		if planned, known := g.shrunk[l.Name]; known {
			have = planned
		}
		if l.Parent == name && !g.gone[l.Name] && have > mtu {
			all = append(all, fmt.Sprintf("%s %s lies on it, with MTU %d", describeKind(l.Kind), l.Name, have))
		}
	}
	for _, away := range link.Away {
		if away.MTU > mtu {
			all = append(all, describeAway(away))
		}
	}
	return append(all, g.state.Blind...)
}

func describeAway(a Away) string {
	return fmt.Sprintf("%s %s of %s lies on it, with MTU %d", describeKind(a.Kind), a.Name, a.User, a.MTU)
}

// covers returns which address, without which the node cannot be reached, is
// in a network.
func (g *guard) covers(network string) string {
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		return network + " cannot be read"
	}
	prefix = prefix.Masked()
	inside := func(text string) bool {
		address, err := netip.ParseAddr(text)
		return err == nil && prefix.Contains(address.WithZone(""))
	}
	for _, route := range g.state.Routes {
		if route.Gateway != "" && inside(route.Gateway) {
			return fmt.Sprintf("the gateway %s of %s is in it", route.Gateway, route.Destination)
		}
	}
	for address := range g.state.Paths {
		if inside(address) {
			return address + ", which must stay reachable, is in it"
		}
	}
	for i := range g.state.Links {
		link := &g.state.Links[i]
		if _, member := g.uplink[link.Name]; !member {
			continue
		}
		for _, text := range link.Addresses {
			if own, err := netip.ParsePrefix(text); err == nil && prefix.Contains(own.Addr()) {
				return fmt.Sprintf("%s of %s is in it", text, link.Name)
			}
		}
	}
	return ""
}
