package hostnet

import (
	"net/netip"
	"slices"
	"strings"
)

// Kinds of links that this package makes. Others are known by the kernel's
// name of their kind; a network card has none.
const (
	KindVLAN    = "vlan"
	KindBridge  = "bridge"
	KindBond    = "bond"
	KindMacvlan = "macvlan"
	KindMacvtap = "macvtap"
)

// State is what the links of a host are.
type State struct {
	Links  []Link  `json:"links"` // in the order in which the kernel made them
	Routes []Route `json:"routes,omitempty"`
	// Paths says through which link an address is reached that must stay
	// reachable; for an address of the host, which link has it.
	Paths map[string]string `json:"paths,omitempty"`
	// Blind says which other network namespaces could not be looked into:
	// what is in there may use any link.
	Blind []string `json:"blind,omitempty"`
}

// Link is one network interface of the host's network namespace.
type Link struct {
	Index        int      `json:"index"`
	Name         string   `json:"name"`
	Kind         string   `json:"kind,omitempty"` // empty: a network card
	Altnames     []string `json:"altnames,omitempty"`
	MAC          string   `json:"mac,omitempty"`
	PermanentMAC string   `json:"permanentMAC,omitempty"`
	MTU          int      `json:"mtu"`
	Up           bool     `json:"up"`               // as the administrator wants it
	State        string   `json:"state,omitempty"`  // as it is: up, down, lowerlayerdown, …
	Master       string   `json:"master,omitempty"` // the bridge or bond that it is a port of
	Parent       string   `json:"parent,omitempty"` // the link that it lies on
	ParentAway   bool     `json:"parentAway,omitempty"`
	Loopback     bool     `json:"loopback,omitempty"`

	VLANID        int      `json:"vlanID,omitempty"`
	Protocol      string   `json:"protocol,omitempty"` // of a VLAN
	Mode          string   `json:"mode,omitempty"`     // of macvlan and macvtap
	VLANFiltering bool     `json:"vlanFiltering,omitempty"`
	Bond          *Bonding `json:"bond,omitempty"`
	PortVLANs     []string `json:"portVLANs,omitempty"` // tags that pass, of the port of a bridge, less the untagged one: 7, 10-20

	Addresses []string  `json:"addresses,omitempty"` // with prefix length; link-local ones of IPv6 left out
	PCI       *PCI      `json:"pci,omitempty"`
	Managers  []Manager `json:"managers,omitempty"`
	Away      []Away    `json:"away,omitempty"` // links of other network namespaces that lie on it
}

// PCI is the device behind a network card.
type PCI struct {
	Address string `json:"address"`
	Driver  string `json:"driver,omitempty"`
	Vendor  string `json:"vendor,omitempty"` // four hexadecimal digits
	Device  string `json:"device,omitempty"`
	PF      string `json:"pf,omitempty"` // of a virtual function: the address of its physical one
}

// Bonding is how a bond works.
type Bonding struct {
	Mode               string `json:"mode"`
	MonitorInterval    int    `json:"monitorInterval,omitempty"`
	LACPRate           string `json:"lacpRate,omitempty"`
	TransmitHashPolicy string `json:"transmitHashPolicy,omitempty"`
}

// Manager is a program that changes links by itself.
type Manager struct {
	Name   string `json:"name"`   // NetworkManager, systemd-networkd, ifupdown
	Source string `json:"source"` // the file that says so
}

// Away is a link in another network namespace, such as a pod's macvlan.
type Away struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	MTU  int    `json:"mtu"`
	User string `json:"user"` // whose namespace it is, in words
}

// Route is a route of the main table that leaves through a link.
type Route struct {
	Destination string `json:"destination"` // 0.0.0.0/0 and ::/0 are the default routes
	Link        string `json:"link"`
	Gateway     string `json:"gateway,omitempty"`
	Source      string `json:"source,omitempty"` // who made it: kernel, boot, static, …
	Metric      int    `json:"metric,omitempty"`
}

// Link returns the link of a name.
func (s *State) Link(name string) (*Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return nil, false
	}
	return &s.Links[i], true
}

// Named returns the link of a kernel's name or an alternative name.
func (s *State) Named(name string) (*Link, bool) {
	if link, found := s.Link(name); found {
		return link, true
	}
	i := slices.IndexFunc(s.Links, func(l Link) bool { return slices.Contains(l.Altnames, name) })
	if i < 0 {
		return nil, false
	}
	return &s.Links[i], true
}

// Identified returns the link of an identity that [Link.Identity] gave.
func (s *State) Identified(identity string) (*Link, bool) {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Identity() == identity })
	if i < 0 {
		return nil, false
	}
	return &s.Links[i], true
}

// RoutesOf lists the destinations that are reached through a link, less those
// that the kernel made with an address.
func (s *State) RoutesOf(name string) []string {
	var routes []string
	for _, route := range s.Routes {
		if route.Link == name && route.Source != "kernel" && route.Gateway == "" {
			routes = append(routes, route.Destination)
		}
	}
	return routes
}

// running is what a link has while it is up, and loses when it goes down.
func (s *State) running(l *Link) Running {
	r := Running{Up: true, Addresses: l.Addresses}
	for _, route := range s.Routes {
		if route.Link == l.Name && route.Source != "kernel" {
			r.Routes = append(r.Routes, route)
		}
	}
	return r
}

// Identity names a network card in a way that outlives a renaming: by its PCI
// address, or else by the address that it was made with. Links that only
// software made have their name alone.
func (l *Link) Identity() string {
	switch {
	case l.PCI != nil:
		return "pci:" + l.PCI.Address
	case l.PermanentMAC != "" && l.Kind == "":
		return "mac:" + l.PermanentMAC
	}
	return "name:" + l.Name
}

// Physical reports whether hardware is behind a link.
func (l *Link) Physical() bool { return l.PCI != nil }

// device is a link as a step writes it.
func (s *State) device(l *Link) Device {
	d := Device{
		Kind: l.Kind, Parent: l.Parent, VLANID: l.VLANID, Protocol: l.Protocol, Mode: l.Mode, VLANFiltering: l.VLANFiltering, Bond: l.Bond,
		MTU: l.MTU, Up: l.Up, Altnames: l.Altnames, Addresses: l.Addresses, Routes: s.RoutesOf(l.Name),
	}
	if l.Kind == KindMacvlan {
		d.MAC = l.MAC
	}
	return d
}

// linkLocal reports whether an address is one that the kernel gives by itself.
func linkLocal(address string) bool {
	prefix, err := netip.ParsePrefix(address)
	return err == nil && prefix.Addr().Is6() && prefix.Addr().IsLinkLocalUnicast()
}

// sorted orders names, so that plans and errors are always the same.
func sorted(names []string) []string {
	all := slices.Clone(names)
	slices.SortFunc(all, strings.Compare)
	return slices.Compact(all)
}
