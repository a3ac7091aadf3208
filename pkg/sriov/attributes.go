package sriov

import (
	"context"
	"fmt"
	"strings"
)

// Attributes are what a PF's driver keeps of one VF, and enforces. In a spec a
// missing one is left as it is; in a state it is one that the driver does not
// tell; in a change it is one that is not to be changed.
type Attributes struct {
	MAC        string `json:"mac,omitempty"`        // "52:54:00:12:00:01"; all zeros: the VF's driver picks one
	VLAN       *VLAN  `json:"vlan,omitempty"`       // inserted and removed by the NIC
	Rate       *Rate  `json:"rate,omitempty"`       // of what the VF sends
	SpoofCheck *bool  `json:"spoofCheck,omitempty"` // drop what is not sent from the VF's own MAC
	Trust      *bool  `json:"trust,omitempty"`      // may change its MAC, be promiscuous
	LinkState  string `json:"linkState,omitempty"`  // auto (as the PF's), enable, disable
}

// VLAN is the tag of a VF; ID 0 is none.
type VLAN struct {
	ID       int    `json:"id"`
	QoS      int    `json:"qos,omitempty"`
	Protocol string `json:"protocol,omitempty"` // 802.1Q when empty, or 802.1ad
}

// Rate bounds what a VF sends, in Mbit/s; 0 is no bound.
type Rate struct {
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
}

// Links is what this package wants of the host's network interfaces, which it
// names as the kernel does.
type Links interface {
	// VFs returns the attributes of a PF's VFs by index.
	VFs(ctx context.Context, pf string) (map[int]Attributes, error)
	// SetVF changes those attributes of a VF that the change has.
	SetVF(ctx context.Context, pf string, index int, change Attributes) error
	// Uses says what uses an interface on this host, in a phrase for each:
	// an address, a master, a device on top of it.
	Uses(ctx context.Context, netdev string) ([]string, error)
	// Uplinks returns the interfaces without which the node is cut off, each
	// with the reason.
	Uplinks(ctx context.Context) (map[string]string, error)
	// Set changes what the change has of an interface.
	Set(ctx context.Context, netdev string, change Link) error
}

// Link is what is changed of an interface.
type Link struct {
	Up  *bool `json:"up,omitempty"`
	MTU int   `json:"mtu,omitempty"`
}

// String lists the attributes that there are: "vlan 100 qos 3, trust on".
func (a Attributes) String() string {
	var parts []string
	if a.MAC != "" {
		parts = append(parts, "mac "+a.MAC)
	}
	if a.VLAN != nil {
		parts = append(parts, a.VLAN.String())
	}
	if a.Rate != nil {
		parts = append(parts, a.Rate.String())
	}
	if a.SpoofCheck != nil {
		parts = append(parts, "spoofCheck "+onOff(*a.SpoofCheck))
	}
	if a.Trust != nil {
		parts = append(parts, "trust "+onOff(*a.Trust))
	}
	if a.LinkState != "" {
		parts = append(parts, "linkState "+a.LinkState)
	}
	return strings.Join(parts, ", ")
}

// String names a tag as it is set: "vlan 100 qos 3".
func (v VLAN) String() string {
	text := fmt.Sprintf("vlan %d", v.ID)
	if v.QoS != 0 {
		text += fmt.Sprintf(" qos %d", v.QoS)
	}
	if v.protocol() != vlan8021Q {
		text += " protocol " + v.Protocol
	}
	return text
}

// String names the bounds as they are set: "maxTxRate 1000".
func (r Rate) String() string {
	if r.Min == 0 {
		return fmt.Sprintf("maxTxRate %d", r.Max)
	}
	return fmt.Sprintf("minTxRate %d maxTxRate %d", r.Min, r.Max)
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

const vlan8021Q = "802.1Q"

func (v VLAN) protocol() string {
	if v.Protocol == "" || v.ID == 0 {
		return vlan8021Q // what no tag has does not matter
	}
	return v.Protocol
}

func (v VLAN) same(other VLAN) bool {
	return v.ID == other.ID && v.QoS == other.QoS && v.protocol() == other.protocol()
}

// IsZero reports whether there is no attribute.
func (a Attributes) IsZero() bool { return a == Attributes{} }

// without returns what of the wanted attributes is not so already. What the
// driver does not tell is not so.
func (a Attributes) without(have Attributes) Attributes {
	if strings.EqualFold(a.MAC, have.MAC) {
		a.MAC = ""
	}
	if a.VLAN != nil && have.VLAN != nil && a.VLAN.same(*have.VLAN) {
		a.VLAN = nil
	}
	if a.Rate != nil && have.Rate != nil && *a.Rate == *have.Rate {
		a.Rate = nil
	}
	if a.SpoofCheck != nil && have.SpoofCheck != nil && *a.SpoofCheck == *have.SpoofCheck {
		a.SpoofCheck = nil
	}
	if a.Trust != nil && have.Trust != nil && *a.Trust == *have.Trust {
		a.Trust = nil
	}
	if a.LinkState == have.LinkState {
		a.LinkState = ""
	}
	return a
}

// of returns the attributes that the change has, as they are now.
func (a Attributes) of(change Attributes) Attributes {
	if change.MAC == "" {
		a.MAC = ""
	}
	if change.VLAN == nil {
		a.VLAN = nil
	}
	if change.Rate == nil {
		a.Rate = nil
	}
	if change.SpoofCheck == nil {
		a.SpoofCheck = nil
	}
	if change.Trust == nil {
		a.Trust = nil
	}
	if change.LinkState == "" {
		a.LinkState = ""
	}
	return a
}
