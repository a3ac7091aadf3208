// Package links is a kernel's links without a kernel: for tests of what plans
// and changes links, as any user. It reacts as Linux does, errors included, and
// passes the suite of pkg/hostnet that Linux passes.
package links

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/hostnet"
)

// Kernel has links. The zero value has none.
type Kernel struct {
	state hostnet.State
	last  int            // index of the link that was made last
	cards map[string]int // MTUs that ports had before they entered a bond
	Ops   []hostnet.Op   // all that was done
}

// AddCard makes a network card.
func (k *Kernel) AddCard(card hostnet.Link) {
	k.last++
	card.Index = k.last
	if card.MTU == 0 {
		card.MTU = 1500
	}
	k.state.Links = append(k.state.Links, card)
}

// AddRoute makes a route, as somebody else than the agent.
func (k *Kernel) AddRoute(route hostnet.Route) { k.state.Routes = append(k.state.Routes, route) }

// Dump returns a copy of all links and routes.
func (k *Kernel) Dump(_ context.Context, reach []netip.Addr) (hostnet.State, error) {
	text, err := json.Marshal(k.state)
	if err != nil {
		return hostnet.State{}, err
	}
	var copied hostnet.State
	if err := json.Unmarshal(text, &copied); err != nil {
		return hostnet.State{}, err
	}
	copied.Paths = make(map[string]string)
	for _, address := range reach {
		best := -1
		for _, route := range k.state.Routes {
			if prefix, err := netip.ParsePrefix(route.Destination); err == nil && prefix.Contains(address) && prefix.Bits() > best {
				best = prefix.Bits()
				copied.Paths[address.String()] = route.Link
			}
		}
	}
	return copied, nil
}

// Do carries out one operation, or fails as Linux does.
func (k *Kernel) Do(_ context.Context, op hostnet.Op) error {
	k.Ops = append(k.Ops, op)
	if err := k.do(op); err != nil {
		return fmt.Errorf("%s %s %s: %w", op.Do, op.Link, op.Text, err)
	}
	return nil
}

func (k *Kernel) do(op hostnet.Op) error {
	if op.Do == hostnet.AddLink {
		return k.add(op.Link, *op.Device)
	}
	link, found := k.state.Link(op.Link)
	if !found {
		return hostnet.ErrNoLink
	}
	switch op.Do {
	case hostnet.DeleteLink:
		k.remove(op.Link)
	case hostnet.SetMTU:
		return k.mtu(link, op.Number)
	case hostnet.SetUp:
		return k.up(link)
	case hostnet.SetDown:
		k.down(link)
	case hostnet.AddAltname:
		if _, taken := k.state.Named(op.Text); taken {
			return unix.EEXIST
		}
		link.Altnames = insert(link.Altnames, op.Text)
	case hostnet.DeleteAltname:
		return take(&link.Altnames, op.Text, unix.EINVAL)
	case hostnet.SetMaster:
		return k.master(link, op.Text)
	case hostnet.AddAddress:
		if slices.Contains(link.Addresses, op.Text) {
			return unix.EEXIST
		}
		link.Addresses = insert(link.Addresses, op.Text)
	case hostnet.DeleteAddress:
		return k.deleteAddress(link, op.Text)
	case hostnet.AddRoute, hostnet.DeleteRoute:
		return k.route(link, op)
	case hostnet.AddVLANs, hostnet.DeleteVLANs:
		return k.vlans(link, op)
	case hostnet.SetFiltering:
		link.VLANFiltering = op.Number != 0
	case hostnet.SetBond:
		mode := link.Bond.Mode
		bond := *op.Device.Bond
		bond.Mode = mode
		link.Bond = &bond
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}

func insert(list []string, item string) []string {
	list = append(list, item)
	slices.Sort(list)
	return list
}

func take(list *[]string, item string, missing error) error {
	i := slices.Index(*list, item)
	if i < 0 {
		return missing
	}
	*list = slices.Delete(*list, i, i+1)
	return nil
}

func (k *Kernel) add(name string, d hostnet.Device) error {
	if _, taken := k.state.Named(name); taken {
		return unix.EEXIST
	}
	l := hostnet.Link{
		Name: name, Kind: d.Kind, MTU: 1500, Parent: d.Parent, VLANID: d.VLANID, Protocol: d.Protocol, Mode: d.Mode,
		VLANFiltering: d.VLANFiltering, Bond: d.Bond, MAC: d.MAC,
	}
	if d.Parent != "" {
		parent, found := k.state.Link(d.Parent)
		if !found {
			return hostnet.ErrNoLink
		}
		l.MTU = parent.MTU
		switch {
		case d.MTU > parent.MTU:
			return unix.EINVAL
		case d.Kind == hostnet.KindMacvlan && parent.Master != "":
			return unix.EBUSY
		}
		for i := range k.state.Links {
			other := &k.state.Links[i]
			if d.Kind == hostnet.KindVLAN && other.Parent == d.Parent && other.VLANID == d.VLANID && other.Protocol == d.Protocol {
				return unix.EEXIST
			}
		}
	}
	if d.MTU != 0 {
		l.MTU = d.MTU
	}
	k.last++
	l.Index = k.last
	if l.Kind == hostnet.KindMacvlan && l.MAC == "" {
		l.MAC = fmt.Sprintf("02:00:00:00:%02x:%02x", l.Index/256, l.Index%256)
	}
	k.state.Links = append(k.state.Links, l)
	return nil
}

// remove takes a link away, with all that lies on it; its ports are set free.
func (k *Kernel) remove(name string) {
	for _, l := range slices.Clone(k.state.Links) {
		if l.Parent == name {
			k.remove(l.Name)
		}
	}
	for i := range k.state.Links {
		if k.state.Links[i].Master == name {
			k.release(&k.state.Links[i])
		}
	}
	k.state.Links = slices.DeleteFunc(k.state.Links, func(l hostnet.Link) bool { return l.Name == name })
	k.dropRoutes(func(r hostnet.Route) bool { return r.Link == name })
}

func (k *Kernel) dropRoutes(drop func(hostnet.Route) bool) {
	k.state.Routes = slices.DeleteFunc(k.state.Routes, drop)
}

func (k *Kernel) release(l *hostnet.Link) {
	if master, found := k.state.Link(l.Master); found && master.Kind == hostnet.KindBond {
		l.MTU, l.Up = k.cards[l.Name], false
	}
	l.Master, l.PortVLANs = "", nil
}

func (k *Kernel) mtu(link *hostnet.Link, mtu int) error {
	if parent, found := k.state.Link(link.Parent); found && mtu > parent.MTU {
		return unix.EINVAL
	}
	link.MTU = mtu
	for i := range k.state.Links {
		l := &k.state.Links[i]
		if l.Parent == link.Name && l.MTU > mtu || link.Kind == hostnet.KindBond && l.Master == link.Name {
			if err := k.mtu(l, mtu); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *Kernel) up(link *hostnet.Link) error {
	if parent, found := k.state.Link(link.Parent); found && link.Kind == hostnet.KindVLAN && !parent.Up {
		return unix.ENETDOWN
	}
	link.Up = true
	return nil
}

// down drops the routes of a link, and sets its VLANs down as well.
func (k *Kernel) down(link *hostnet.Link) {
	link.Up = false
	k.dropRoutes(func(r hostnet.Route) bool { return r.Link == link.Name })
	for i := range k.state.Links {
		if l := &k.state.Links[i]; l.Parent == link.Name && l.Kind == hostnet.KindVLAN && l.Up {
			k.down(l)
		}
	}
}

func (k *Kernel) master(link *hostnet.Link, name string) error {
	if name == "" {
		k.release(link)
		return nil
	}
	master, found := k.state.Link(name)
	if !found {
		return hostnet.ErrNoLink
	}
	if link.Master != "" && link.Master != name {
		k.release(link)
	}
	for i := range k.state.Links {
		if l := &k.state.Links[i]; l.Parent == link.Name && l.Kind == hostnet.KindMacvlan {
			return unix.EBUSY
		}
	}
	if master.Kind == hostnet.KindBond {
		if link.Up {
			return unix.EPERM
		}
		if k.cards == nil {
			k.cards = make(map[string]int)
		}
		k.cards[link.Name] = link.MTU
		link.MTU, link.Up = master.MTU, true
	}
	link.Master = name
	return nil
}

// deleteAddress takes the others of the same network with the first, and the
// routes with the last.
func (k *Kernel) deleteAddress(link *hostnet.Link, address string) error {
	if err := take(&link.Addresses, address, unix.EADDRNOTAVAIL); err != nil {
		return err
	}
	gone, err := netip.ParsePrefix(address)
	if err != nil {
		return err
	}
	left := 0
	link.Addresses = slices.DeleteFunc(link.Addresses, func(text string) bool {
		other, err := netip.ParsePrefix(text)
		same := err == nil && other.Masked() == gone.Masked()
		if err == nil && !same && other.Addr().Is4() == gone.Addr().Is4() {
			left++
		}
		return same
	})
	if left == 0 {
		k.dropRoutes(func(r hostnet.Route) bool {
			prefix, err := netip.ParsePrefix(r.Destination)
			return r.Link == link.Name && err == nil && prefix.Addr().Is4() == gone.Addr().Is4()
		})
	}
	return nil
}

func (k *Kernel) route(link *hostnet.Link, op hostnet.Op) error {
	route := *op.Route
	route.Link = link.Name
	at := slices.Index(k.state.Routes, route)
	switch {
	case op.Do == hostnet.DeleteRoute && at < 0:
		return unix.ESRCH
	case op.Do == hostnet.DeleteRoute:
		k.state.Routes = slices.Delete(k.state.Routes, at, at+1)
	case !link.Up:
		return unix.ENETDOWN
	case at >= 0:
		return unix.EEXIST
	default:
		k.state.Routes = append(k.state.Routes, route)
	}
	return nil
}

func (k *Kernel) vlans(link *hostnet.Link, op hostnet.Op) error {
	if link.Master == "" {
		return unix.EOPNOTSUPP
	}
	have := make(map[int]bool)
	mark := func(text string, passes bool) error {
		first, last, err := v1alpha1.ParseRange(text, 1, 4094)
		for id := first; err == nil && id <= last; id++ {
			have[id] = passes
		}
		return err
	}
	for _, text := range link.PortVLANs {
		if err := mark(text, true); err != nil {
			return err
		}
	}
	if err := mark(op.Text, op.Do == hostnet.AddVLANs); err != nil {
		return unix.EINVAL
	}
	link.PortVLANs = nil
	for id := 1; id <= 4094; id++ {
		if !have[id] {
			continue
		}
		last := id
		for have[last+1] {
			last++
		}
		text := strconv.Itoa(id)
		if last > id {
			text += "-" + strconv.Itoa(last)
		}
		link.PortVLANs = append(link.PortVLANs, text)
		id = last
	}
	return nil
}

// String shows all links and routes, less what is drawn or counted anew when a
// link is made anew.
func (k *Kernel) String() string {
	var out strings.Builder
	links := slices.Clone(k.state.Links)
	slices.SortFunc(links, func(a, b hostnet.Link) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range links {
		l.Index = 0
		text, err := json.Marshal(l)
		fmt.Fprintln(&out, string(text), err)
	}
	routes := slices.Clone(k.state.Routes)
	slices.SortFunc(routes, func(a, b hostnet.Route) int { return strings.Compare(a.Destination+a.Link, b.Destination+b.Link) })
	for _, r := range routes {
		fmt.Fprintln(&out, r)
	}
	return out.String()
}
