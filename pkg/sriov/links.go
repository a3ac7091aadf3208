package sriov

import "context"

// Links is what a PF's network driver does for its VFs, through netlink.
// Package hostnet provides it.
type Links interface {
	// Look returns the network interfaces of the host as they are now.
	Look(ctx context.Context) (Snapshot, error)
	// VFs returns what the driver of a PF's interface enforces, by VF index.
	VFs(ctx context.Context, pf string) (map[int]Attributes, error)
	// SetVF sets those attributes of one VF that are not nil.
	SetVF(ctx context.Context, pf string, index int, want Attributes) error
	// SetLink sets the MTU (unless 0) and whether a link is up (unless nil).
	SetLink(ctx context.Context, name string, mtu int, up *bool) error
}

// Snapshot is the network interfaces of one moment.
type Snapshot interface {
	// Named returns the interface of a name, if there is one.
	Named(name string) (link Link, found bool)
	// Uplink returns why the node cannot be reached without an interface, if
	// it cannot.
	Uplink(name string) (reason string, is bool)
}

// Link is a network interface of the host.
type Link struct {
	Name     string   `json:"name"`
	Altnames []string `json:"altnames,omitempty"`
	MAC      string   `json:"mac,omitempty"`
	MTU      int      `json:"mtu"`
	Up       bool     `json:"up"`              // set up by the administrator
	Users    []string `json:"users,omitempty"` // addresses of the host, a master, interfaces on top: each in words
}

// Attributes are what a PF's driver enforces on one VF (IFLA_VFINFO_LIST).
// What is nil or empty is not known, or not to be set.
type Attributes struct {
	MAC          string `json:"mac,omitempty"`
	VLAN         *int   `json:"vlan,omitempty"`         // 0: none
	QoS          *int   `json:"qos,omitempty"`          // set together with VLAN
	VLANProtocol string `json:"vlanProtocol,omitempty"` // 802.1Q or 802.1ad
	MinTxRate    *int   `json:"minTxRate,omitempty"`    // Mbit/s, 0: none
	MaxTxRate    *int   `json:"maxTxRate,omitempty"`    // Mbit/s, 0: no limit
	SpoofCheck   *bool  `json:"spoofCheck,omitempty"`
	Trust        *bool  `json:"trust,omitempty"`
	LinkState    string `json:"linkState,omitempty"` // auto, enable or disable
}
