package hostnet

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// linkStates are the words for IFLA_VF_LINK_STATE.
func linkStates() map[uint32]string {
	return map[uint32]string{netlink.VF_LINK_STATE_AUTO: "auto", netlink.VF_LINK_STATE_ENABLE: "enable", netlink.VF_LINK_STATE_DISABLE: "disable"}
}

// VFs returns what the driver of a PF's interface enforces, by VF index.
func (n *Netlink) VFs(ctx context.Context, pf string) (map[int]sriov.Attributes, error) {
	// A dump leaves VFs out that do not fit; the answer about one link has all.
	link, err := dump(ctx, "VFs of "+pf, func() (netlink.Link, error) { return n.byName(pf) })
	if err != nil {
		return nil, err
	}
	return vfsOf(link), nil
}

func vfsOf(link netlink.Link) map[int]sriov.Attributes {
	all := make(map[int]sriov.Attributes)
	for _, vf := range link.Attrs().Vfs {
		least, most, trust := int(vf.MinTxRate), int(vf.MaxTxRate), vf.Trust != 0
		attributes := sriov.Attributes{
			MAC: vf.Mac.String(), VLAN: &vf.Vlan, QoS: &vf.Qos, MinTxRate: &least, MaxTxRate: &most,
			SpoofCheck: &vf.Spoofchk, Trust: &trust, LinkState: linkStates()[vf.LinkState],
		}
		if vf.VlanProto != 0 {
			attributes.VLANProtocol = protocolName(netlink.VlanProtocol(vf.VlanProto))
		}
		all[vf.ID] = attributes
	}
	return all
}

// SetVF sets those attributes of one VF that are not nil. Of VLAN, QoS and
// protocol, and of the two rates, the kernel wants all at once: what is not
// said stays as it is.
func (n *Netlink) SetVF(_ context.Context, pf string, index int, want sriov.Attributes) error {
	link, err := n.byName(pf)
	if err != nil {
		return fmt.Errorf("set VF %d of %s: %w", index, pf, err)
	}
	all := vfsOf(link)
	have, found := all[index]
	if !found {
		return fmt.Errorf("set VF %d of %s: it has %d VFs", index, pf, len(all))
	}
	failed := func(what string, err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("set %s of VF %d of %s: %w", what, index, pf, err)
	}
	if want.MAC != "" {
		mac, err := net.ParseMAC(want.MAC)
		if err == nil {
			err = n.handle.LinkSetVfHardwareAddr(link, index, mac)
		}
		if err != nil {
			return failed("MAC", err)
		}
	}
	if want.VLAN != nil || want.QoS != nil || want.VLANProtocol != "" {
		if err := n.setVFVLAN(link, index, want, have); err != nil {
			return failed("VLAN", err)
		}
	}
	if want.MinTxRate != nil || want.MaxTxRate != nil {
		if err := n.handle.LinkSetVfRate(link, index, *or(want.MinTxRate, have.MinTxRate), *or(want.MaxTxRate, have.MaxTxRate)); err != nil {
			return failed("rate", err)
		}
	}
	if want.SpoofCheck != nil {
		if err := n.handle.LinkSetVfSpoofchk(link, index, *want.SpoofCheck); err != nil {
			return failed("spoof check", err)
		}
	}
	if want.Trust != nil {
		if err := n.handle.LinkSetVfTrust(link, index, *want.Trust); err != nil {
			return failed("trust", err)
		}
	}
	for state, word := range linkStates() {
		if want.LinkState == word {
			return failed("link state", n.handle.LinkSetVfState(link, index, state))
		}
	}
	return nil
}

func (n *Netlink) setVFVLAN(link netlink.Link, index int, want, have sriov.Attributes) error {
	vlan, qos := *or(want.VLAN, have.VLAN), *or(want.QoS, have.QoS)
	protocol := want.VLANProtocol
	if protocol == "" {
		protocol = have.VLANProtocol
	}
	if protocol != v1alpha1.Protocol8021AD {
		return n.handle.LinkSetVfVlanQos(link, index, vlan, qos) // every driver knows this one
	}
	return n.handle.LinkSetVfVlanQosProto(link, index, vlan, qos, int(netlink.VLAN_PROTOCOL_8021AD))
}

func or[T any](value, otherwise *T) *T {
	if value != nil {
		return value
	}
	return otherwise
}

// SetLink sets the MTU (unless 0) and whether a link is up (unless nil).
func (n *Netlink) SetLink(ctx context.Context, name string, mtu int, up *bool) error {
	if mtu != 0 {
		if err := n.Do(ctx, Op{Do: SetMTU, Link: name, Number: mtu}); err != nil {
			return err
		}
	}
	if up == nil {
		return nil
	}
	verb := SetDown
	if *up {
		verb = SetUp
	}
	return n.Do(ctx, Op{Do: verb, Link: name})
}

// VFLinks is what package sriov wants to know of links, and to do with them.
type VFLinks struct {
	*Host
	*Netlink
}

// Look returns the network interfaces of the host as they are now.
func (h *Host) Look(ctx context.Context) (sriov.Snapshot, error) {
	state, err := h.Observe(ctx)
	if err != nil {
		return nil, err
	}
	return snapshot{guard: guard{state: &state}, uplink: state.Uplink()}, nil
}

// snapshot is a state as package sriov sees it.
type snapshot struct {
	guard  guard
	uplink map[string]string
}

// Named returns the interface of a name, and who uses it.
func (s snapshot) Named(name string) (sriov.Link, bool) {
	link, found := s.guard.state.Link(name)
	if !found {
		return sriov.Link{}, false
	}
	users := s.guard.users(name)
	for _, address := range link.Addresses {
		users = append(users, "the host has "+address+" there")
	}
	if link.Master != "" {
		users = append(users, "it is a port of "+link.Master)
	}
	return sriov.Link{Name: link.Name, Altnames: link.Altnames, MAC: link.MAC, MTU: link.MTU, Up: link.Up, Users: users}, true
}

// Uplink returns why the node cannot be reached without an interface.
func (s snapshot) Uplink(name string) (reason string, is bool) {
	reason, is = s.uplink[name]
	return reason, is
}

var _ sriov.Links = VFLinks{}
