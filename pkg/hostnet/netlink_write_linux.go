package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// ErrNoLink says that there is no link of a name.
var ErrNoLink = errors.New("no such link")

// Do carries out one operation.
func (n *Netlink) Do(_ context.Context, op Op) error {
	if err := n.do(op); err != nil {
		return fmt.Errorf("%s %s%s: %w", op.Do, op.Link, spaced(op.Text), err)
	}
	return nil
}

func spaced(text string) string {
	if text == "" {
		return ""
	}
	return " " + text
}

func (n *Netlink) do(op Op) error {
	if op.Do == AddLink {
		return n.add(op.Link, *op.Device)
	}
	link, err := n.byName(op.Link)
	if err != nil {
		return err
	}
	switch op.Do {
	case DeleteLink:
		return n.handle.LinkDel(link)
	case SetMTU:
		return n.handle.LinkSetMTU(link, op.Number)
	case SetUp:
		return n.handle.LinkSetUp(link)
	case SetDown:
		return n.handle.LinkSetDown(link)
	case AddAltname:
		return n.handle.LinkAddAltName(link, op.Text)
	case DeleteAltname:
		return n.handle.LinkDelAltName(link, op.Text)
	case SetMaster:
		return n.setMaster(link, op.Text)
	case AddAddress, DeleteAddress:
		return n.address(link, op)
	case AddRoute, DeleteRoute:
		return n.route(link, op)
	case AddVLANs, DeleteVLANs:
		return n.vlans(link, op)
	case SetFiltering:
		filtering := op.Number != 0
		return n.handle.LinkModify(&netlink.Bridge{LinkAttrs: named(link), VlanFiltering: &filtering})
	case SetBond:
		bond := netlink.NewLinkBond(named(link))
		setBonding(bond, *op.Device.Bond)
		return n.handle.LinkModify(bond)
	}
	return errors.New("this is no operation")
}

// named are attributes that say which link it is, and nothing else.
func named(link netlink.Link) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = link.Attrs().Name, link.Attrs().Index
	return attrs
}

// byName returns the link that has exactly this name: the kernel would take an
// alternative name as well.
func (n *Netlink) byName(name string) (netlink.Link, error) {
	link, err := n.handle.LinkByName(name)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, ErrNoLink
	}
	if err != nil {
		return nil, err
	}
	if link.Attrs().Name != name {
		return nil, fmt.Errorf("%w: it is an alternative name of %s", ErrNoLink, link.Attrs().Name)
	}
	return link, nil
}

func (n *Netlink) setMaster(link netlink.Link, name string) error {
	if name == "" {
		return n.handle.LinkSetNoMaster(link)
	}
	master, err := n.byName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return n.handle.LinkSetMaster(link, master)
}

func (n *Netlink) add(name string, d Device) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, d.MTU
	if d.MAC != "" {
		mac, err := net.ParseMAC(d.MAC)
		if err != nil {
			return err
		}
		attrs.HardwareAddr = mac
	}
	if d.Parent != "" {
		parent, err := n.byName(d.Parent)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Parent, err)
		}
		attrs.ParentIndex = parent.Attrs().Index
	}
	switch d.Kind {
	case KindVLAN:
		protocol := netlink.VLAN_PROTOCOL_8021Q
		if d.Protocol == v1alpha1.Protocol8021AD {
			protocol = netlink.VLAN_PROTOCOL_8021AD
		}
		return n.handle.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: d.VLANID, VlanProtocol: protocol})
	case KindMacvlan:
		return n.handle.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	case KindBridge:
		bridge := &netlink.Bridge{LinkAttrs: attrs}
		if d.VLANFiltering {
			bridge.VlanFiltering = &d.VLANFiltering // a kernel without it does not even take a no
		}
		return n.handle.LinkAdd(bridge)
	case KindBond:
		bond := netlink.NewLinkBond(attrs)
		bond.Mode = netlink.StringToBondMode(d.Bond.Mode)
		setBonding(bond, *d.Bond)
		return n.handle.LinkAdd(bond)
	}
	return fmt.Errorf("a link of kind %q is not made", d.Kind)
}

func setBonding(bond *netlink.Bond, b Bonding) {
	bond.Miimon = b.MonitorInterval
	bond.XmitHashPolicy = netlink.StringToBondXmitHashPolicy(b.TransmitHashPolicy)
	if b.LACPRate != "" {
		bond.LacpRate = netlink.StringToBondLacpRate(b.LACPRate)
	}
}

func (n *Netlink) address(link netlink.Link, op Op) error {
	address, err := netlink.ParseAddr(op.Text)
	if err != nil {
		return err
	}
	if op.Do == DeleteAddress {
		return n.handle.AddrDel(link, address)
	}
	return n.handle.AddrAdd(link, address)
}

func (n *Netlink) route(link netlink.Link, op Op) error {
	prefix, err := netip.ParsePrefix(op.Route.Destination)
	if err != nil {
		return err
	}
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Protocol: protocolOf(op.Route.Source), Table: unix.RT_TABLE_MAIN,
		Dst: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}, Priority: op.Route.Metric,
	}
	if op.Route.Gateway != "" {
		route.Gw = net.ParseIP(op.Route.Gateway)
	}
	if prefix.Addr().Is6() || op.Route.Gateway != "" {
		route.Scope = netlink.SCOPE_UNIVERSE
	}
	if op.Do == DeleteRoute {
		return n.handle.RouteDel(route)
	}
	return n.handle.RouteAdd(route)
}

// protocolOf is who made a route, by the word that a dump had for it.
func protocolOf(word string) netlink.RouteProtocol {
	for protocol := range netlink.RouteProtocol(255) {
		if protocol.String() == word {
			return protocol
		}
	}
	return unix.RTPROT_STATIC
}

func (n *Netlink) vlans(link netlink.Link, op Op) error {
	first, last, err := v1alpha1.ParseRange(op.Text, 1, 4094)
	if err != nil {
		return err
	}
	change := n.handle.BridgeVlanAddRange
	if op.Do == DeleteVLANs {
		change = n.handle.BridgeVlanDelRange
	}
	if first == last {
		last = 0
	}
	return change(link, uint16(first), uint16(last), false, false, false, false)
}
