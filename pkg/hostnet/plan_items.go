package hostnet

import (
	"net/netip"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

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
	if original, ours := p.byKey[key(kind, w.Identity, item)]; ours {
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
