package hostnet

import (
	"context"
	"net/netip"
)

// Kernel is what has links. Package test/links has one that is none, and
// behaves in the same way.
type Kernel interface {
	// Dump returns all links and routes of the host's network namespace, and
	// how each of the addresses is reached.
	Dump(ctx context.Context, reach []netip.Addr) (State, error)
	// Do carries out one operation.
	Do(ctx context.Context, op Op) error
}

// Verb is what an operation does.
type Verb string

// The verbs, and which fields of an [Op] they use besides Link.
const (
	AddLink       Verb = "add-link"       // Device: kind, parent, VLAN, mode, bond, filtering, MTU, MAC
	DeleteLink    Verb = "delete-link"    //
	SetMTU        Verb = "set-mtu"        // Number
	SetUp         Verb = "set-up"         //
	SetDown       Verb = "set-down"       //
	AddAltname    Verb = "add-altname"    // Text
	DeleteAltname Verb = "delete-altname" // Text
	SetMaster     Verb = "set-master"     // Text; empty: none
	AddAddress    Verb = "add-address"    // Text
	DeleteAddress Verb = "delete-address" // Text
	AddRoute      Verb = "add-route"      // Route
	DeleteRoute   Verb = "delete-route"   // Route
	AddVLANs      Verb = "add-vlans"      // Text: N or N-M, through the port of a bridge
	DeleteVLANs   Verb = "delete-vlans"   // Text
	SetFiltering  Verb = "set-filtering"  // Number: 0 or 1
	SetBond       Verb = "set-bond"       // Device: bond, less its mode
)

// Op is one operation on a link, as small as the kernel knows them.
type Op struct {
	Do     Verb
	Link   string
	Text   string
	Number int
	Device *Device
	Route  *Route
}

// Device is a link that software makes: the value of a step.
type Device struct {
	Kind          string   `json:"kind"`
	Parent        string   `json:"parent,omitempty"`
	VLANID        int      `json:"vlanID,omitempty"`
	Protocol      string   `json:"protocol,omitempty"`
	Mode          string   `json:"mode,omitempty"`
	VLANFiltering bool     `json:"vlanFiltering,omitempty"`
	Bond          *Bonding `json:"bond,omitempty"`
	MAC           string   `json:"mac,omitempty"` // empty: the kernel's choice
	MTU           int      `json:"mtu,omitempty"` // 0: the kernel's choice
	Up            bool     `json:"up,omitempty"`
	Altnames      []string `json:"altnames,omitempty"`
	Addresses     []string `json:"addresses,omitempty"`
	Routes        []string `json:"routes,omitempty"`
}

// alike reports whether one device can become the other without being made anew.
func (d Device) alike(other Device) bool {
	mode := func(d Device) string {
		if d.Bond == nil {
			return ""
		}
		return d.Bond.Mode
	}
	return d.Kind == other.Kind && d.Parent == other.Parent && d.VLANID == other.VLANID && d.Protocol == other.Protocol &&
		d.Mode == other.Mode && mode(d) == mode(other)
}

// Attachment is the value of the step that makes a link the port of another.
type Attachment struct {
	Master string   `json:"master,omitempty"` // empty: of none
	VLANs  []string `json:"vlans,omitempty"`  // tags that pass through the port of a bridge
	Up     bool     `json:"up"`               // whether the link was up: to leave a bond takes it down
	// MTU is what the link had before it entered a bond, which gives it back.
	MTU int `json:"mtu,omitempty"`
}

// Running is the value of the step that sets a link up or down. What the
// kernel drops when a link goes down is part of it, to be brought back.
type Running struct {
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses,omitempty"`
	Routes    []Route  `json:"routes,omitempty"`
}
