package hostnet

import (
	"fmt"
	"maps"
	"slices"
)

// Uplink returns the links without which the node cannot be reached, each with
// the reason: those that the default routes and the addresses that must stay
// reachable leave through, and all that these lie on.
func (s *State) Uplink() map[string]string {
	members := make(map[string]string)
	var queue []string
	add := func(name, reason string) {
		if _, known := members[name]; !known && name != "" && name != "lo" {
			members[name] = reason
			queue = append(queue, name)
		}
	}
	for _, route := range s.Routes {
		if route.Destination == "0.0.0.0/0" || route.Destination == "::/0" {
			reason := "the default route " + route.Destination + " leaves through it"
			if route.Gateway != "" {
				reason = fmt.Sprintf("the default route %s via %s leaves through it", route.Destination, route.Gateway)
			}
			add(route.Link, reason)
		}
	}
	for _, address := range slices.Sorted(maps.Keys(s.Paths)) {
		add(s.Paths[address], "the way to "+address+" leads through it")
	}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		link, found := s.Link(name)
		if !found {
			continue
		}
		s.below(link, func(below, relation string) { add(below, fmt.Sprintf("%s, and %s", relation, members[name])) })
	}
	return members
}

// below calls add for all that a link lies on: ports, parent, physical function.
func (s *State) below(link *Link, add func(name, relation string)) {
	for i := range s.Links {
		other := &s.Links[i]
		switch {
		case other.Master == link.Name:
			add(other.Name, "it is a port of "+link.Name)
		case link.Kind == "openvswitch" && other.Master == "ovs-system":
			add(other.Name, "it is a port of Open vSwitch, as is "+link.Name)
		case link.PCI != nil && link.PCI.PF != "" && other.PCI != nil && other.PCI.Address == link.PCI.PF:
			add(other.Name, "it is the physical function of "+link.Name)
		}
	}
	if link.Parent != "" {
		add(link.Parent, link.Name+" lies on it")
	}
}
