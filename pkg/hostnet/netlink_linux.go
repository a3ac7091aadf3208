package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// socketTimeout bounds each exchange with the kernel. It answers within
// microseconds, but a driver may hold its lock for as long as a card takes to
// come up.
const socketTimeout = 30 * time.Second

// mostDumps is how often a dump is repeated that a change has interrupted.
const mostDumps = 20

// Netlink is the kernel of a network namespace, through rtnetlink.
type Netlink struct {
	handle *netlink.Handle
	space  netns.NsHandle
}

// OpenNetlink returns the kernel of the network namespace at a path, such as
// /proc/1/ns/net. Close it.
func OpenNetlink(path string) (*Netlink, error) {
	space, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	handle, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err == nil {
		err = handle.SetSocketTimeout(socketTimeout)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink of %s: %w", path, err), space.Close())
	}
	return &Netlink{handle: handle, space: space}, nil
}

// Close gives the sockets back.
func (n *Netlink) Close() error {
	n.handle.Close()
	return n.space.Close()
}

// dump repeats what a change of the links has interrupted: what it returned is
// not a state that ever was.
func dump[T any](ctx context.Context, what string, list func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		all, err := list()
		switch {
		case err == nil:
			return all, nil
		case ctx.Err() != nil:
			return all, fmt.Errorf("list %s: %w", what, context.Cause(ctx))
		case !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR), attempt == mostDumps:
			return all, fmt.Errorf("list %s: %w", what, err)
		}
	}
}

// Dump reads links, addresses, routes and VLAN filters.
func (n *Netlink) Dump(ctx context.Context, reach []netip.Addr) (State, error) {
	links, err := dump(ctx, "links", n.handle.LinkList)
	if err != nil {
		return State{}, err
	}
	addresses, err := dump(ctx, "addresses", func() ([]netlink.Addr, error) { return n.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return State{}, err
	}
	vlans, err := dump(ctx, "bridge VLANs", n.handle.BridgeVlanList)
	if err != nil {
		return State{}, err
	}
	var state State
	names := make(map[int]string, len(links))
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	for _, link := range links {
		state.Links = append(state.Links, linkOf(link, names, vlans))
	}
	slices.SortFunc(state.Links, func(a, b Link) int { return a.Index - b.Index })
	for _, address := range addresses {
		text := address.IPNet.String()
		if link, found := state.Link(names[address.LinkIndex]); found && !linkLocal(text) {
			link.Addresses = append(link.Addresses, text)
		}
	}
	for i := range state.Links {
		slices.Sort(state.Links[i].Addresses)
	}
	if state.Routes, err = n.routes(ctx, names); err != nil {
		return State{}, err
	}
	state.Paths, err = n.paths(reach, &state, names)
	return state, err
}

func linkOf(link netlink.Link, names map[int]string, vlans map[int32][]*nl.BridgeVlanInfo) Link {
	attrs := link.Attrs()
	l := Link{
		Index: attrs.Index, Name: attrs.Name, MTU: attrs.MTU, State: attrs.OperState.String(),
		MAC: attrs.HardwareAddr.String(), PermanentMAC: attrs.PermHWAddr.String(),
		Up: attrs.Flags&net.FlagUp != 0, Loopback: attrs.Flags&net.FlagLoopback != 0,
		Altnames: sorted(attrs.AltNames), Master: names[attrs.MasterIndex],
	}
	if kind := link.Type(); kind != "device" {
		l.Kind = kind
	}
	switch {
	case attrs.NetNsID >= 0 && attrs.ParentIndex != 0:
		l.ParentAway = true
	case attrs.ParentIndex != attrs.Index: // a veth of its own namespace names its peer, which is no parent
		if l.Kind != "veth" {
			l.Parent = names[attrs.ParentIndex]
		}
	}
	switch link := link.(type) {
	case *netlink.Vlan:
		l.VLANID, l.Protocol = link.VlanId, protocolName(link.VlanProtocol)
	case *netlink.Macvlan:
		l.Mode = macvlanMode(link.Mode)
	case *netlink.Macvtap:
		l.Mode = macvlanMode(link.Mode)
	case *netlink.Bridge:
		l.VLANFiltering = link.VlanFiltering != nil && *link.VlanFiltering
	case *netlink.Bond:
		l.Bond = &Bonding{Mode: link.Mode.String(), MonitorInterval: link.Miimon, TransmitHashPolicy: link.XmitHashPolicy.String()}
		if link.Mode == netlink.BOND_MODE_802_3AD {
			l.Bond.LACPRate = link.LacpRate.String()
		}
	}
	if l.Master != "" {
		l.PortVLANs = tagged(vlans[int32(attrs.Index)])
	}
	if attrs.ParentDevBus == "pci" || attrs.ParentDevBus == "virtio" {
		l.PCI = &PCI{Address: attrs.ParentDev} // a virtio device is looked up in sysfs
	}
	return l
}

// tagged lists the VLANs that pass a port with their tags, as ranges. The one
// that passes without, which a bridge gives each port, is not among them.
func tagged(all []*nl.BridgeVlanInfo) []string {
	var ids []int
	for _, vlan := range all {
		if !vlan.EngressUntag() && !vlan.PortVID() {
			ids = append(ids, int(vlan.Vid))
		}
	}
	return ranges(ids)
}

// ranges writes numbers as N and N-M.
func ranges(ids []int) []string {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var out []string
	for i := 0; i < len(ids); {
		last := i
		for last+1 < len(ids) && ids[last+1] == ids[last]+1 {
			last++
		}
		text := strconv.Itoa(ids[i])
		if last > i {
			text += "-" + strconv.Itoa(ids[last])
		}
		out = append(out, text)
		i = last + 1
	}
	return out
}

func protocolName(p netlink.VlanProtocol) string {
	switch p {
	case netlink.VLAN_PROTOCOL_8021Q:
		return v1alpha1.Protocol8021Q
	case netlink.VLAN_PROTOCOL_8021AD:
		return v1alpha1.Protocol8021AD
	}
	return p.String()
}

func macvlanMode(mode netlink.MacvlanMode) string {
	switch mode {
	case netlink.MACVLAN_MODE_PRIVATE:
		return "private"
	case netlink.MACVLAN_MODE_VEPA:
		return "vepa"
	case netlink.MACVLAN_MODE_BRIDGE:
		return "bridge"
	case netlink.MACVLAN_MODE_PASSTHRU:
		return "passthru"
	case netlink.MACVLAN_MODE_SOURCE:
		return "source"
	}
	return strconv.Itoa(int(mode))
}

func (n *Netlink) routes(ctx context.Context, names map[int]string) ([]Route, error) {
	main := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	all, err := dump(ctx, "routes", func() ([]netlink.Route, error) {
		return n.handle.RouteListFiltered(netlink.FAMILY_ALL, main, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, r := range all {
		destination := "0.0.0.0/0"
		switch {
		case r.Dst != nil:
			destination = r.Dst.String()
		case r.Family == unix.AF_INET6:
			destination = "::/0"
		}
		if linkLocal(destination) {
			continue
		}
		source := r.Protocol.String()
		if len(r.MultiPath) == 0 {
			routes = append(routes, Route{Destination: destination, Link: names[r.LinkIndex], Gateway: gateway(r.Gw, r.Via), Source: source, Metric: r.Priority})
		}
		for _, hop := range r.MultiPath {
			routes = append(routes, Route{Destination: destination, Link: names[hop.LinkIndex], Gateway: gateway(hop.Gw, hop.Via), Source: source, Metric: r.Priority})
		}
	}
	return routes, nil
}

func gateway(ip net.IP, via netlink.Destination) string {
	if v, ok := via.(*netlink.Via); ok && ip == nil {
		ip = v.Addr
	}
	if ip == nil {
		return ""
	}
	return ip.String()
}

// paths asks the kernel, which knows of rules and metrics, how an address is
// reached. One that cannot be reached has no path.
func (n *Netlink) paths(reach []netip.Addr, state *State, names map[int]string) (map[string]string, error) {
	paths := make(map[string]string, len(reach))
	for _, address := range reach {
		if owner := ownerOf(state, address); owner != "" {
			paths[address.String()] = owner
			continue
		}
		routes, err := n.handle.RouteGet(address.AsSlice())
		switch {
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL):
		case err != nil:
			return nil, fmt.Errorf("find the route to %s: %w", address, err)
		case len(routes) > 0:
			paths[address.String()] = names[routes[0].LinkIndex]
		}
	}
	return paths, nil
}

// ownerOf returns the link that has an address.
func ownerOf(state *State, address netip.Addr) string {
	for i := range state.Links {
		for _, text := range state.Links[i].Addresses {
			if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Addr() == address {
				return state.Links[i].Name
			}
		}
	}
	return ""
}
