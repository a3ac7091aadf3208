package hostnet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// WriterName is what the kinds of this package's steps begin with.
const WriterName = "link"

// The kinds of steps, and the type of their values.
const (
	stepDevice   = WriterName + "/device"  // Device, or null
	stepOptions  = WriterName + "/options" // options
	stepAltname  = WriterName + "/altname" // bool; the item is the name
	stepMTU      = WriterName + "/mtu"     // int
	stepUp       = WriterName + "/up"      // Running
	stepMaster   = WriterName + "/master"  // Attachment
	stepAddress  = WriterName + "/address" // bool; the item is the address
	stepRoute    = WriterName + "/route"   // bool; the item is the destination
	textDelete   = "delete %s %s"
	textDetached = "take %s out of %s"
)

// options are what can be changed of a link without making it anew.
type options struct {
	VLANFiltering bool     `json:"vlanFiltering,omitempty"`
	Bond          *Bonding `json:"bond,omitempty"`
}

// optionsOf returns what can be changed of a link, nil when there is nothing.
func optionsOf(kind string, filtering bool, bond *Bonding) *options {
	switch kind {
	case KindBridge:
		return &options{VLANFiltering: filtering}
	case KindBond:
		return &options{Bond: bond}
	}
	return nil
}

func step[T any](kind string, on subject, item string, was, want T, format string, args ...any) reconcile.Step {
	return reconcile.Step{
		Kind: kind, Target: on.name, Identity: on.identity, Item: item, Policy: on.policy,
		Was: reconcile.Value(was), Want: reconcile.Value(want), Disruption: reconcile.None, Text: fmt.Sprintf(format, args...),
	}
}

// subject is the link that a step is about, and who wants it.
type subject struct{ name, identity, policy string }

// describeDevice says how a link is made.
func describeDevice(name string, d Device) string {
	var out strings.Builder
	switch d.Kind {
	case KindVLAN:
		fmt.Fprintf(&out, "create VLAN %s (id %d) on %s", name, d.VLANID, d.Parent)
	case KindBridge:
		fmt.Fprintf(&out, "create bridge %s", name)
		if d.VLANFiltering {
			out.WriteString(" that filters VLANs")
		}
	case KindBond:
		fmt.Fprintf(&out, "create bond %s (%s)", name, d.Bond.Mode)
	default:
		fmt.Fprintf(&out, "create %s %s on %s", d.Kind, name, d.Parent)
	}
	if d.MTU != 0 {
		fmt.Fprintf(&out, ", MTU %d", d.MTU)
	}
	for _, part := range []struct {
		word string
		list []string
	}{{"altname", d.Altnames}, {"address", d.Addresses}, {"route", d.Routes}} {
		for _, item := range part.list {
			fmt.Fprintf(&out, ", %s %s", part.word, item)
		}
	}
	return out.String()
}

func describeKind(kind string) string {
	if kind == KindVLAN {
		return "VLAN"
	}
	return kind
}

// deleteStep removes a link that software made.
func deleteStep(on subject, d Device) reconcile.Step {
	s := step[any](stepDevice, on, "", d, nil, textDelete, describeKind(d.Kind), on.name)
	if d.Up {
		s.Disruption = reconcile.LinkFlap
	}
	return s
}

func mtuStep(on subject, was, want int, flap bool) reconcile.Step {
	s := step(stepMTU, on, "", was, want, "set MTU of %s from %d to %d", on.name, was, want)
	if flap {
		s.Disruption = reconcile.LinkFlap
	}
	return s
}

func upStep(on subject) reconcile.Step {
	return step(stepUp, on, "", Running{}, Running{Up: true}, "set %s up", on.name)
}

// downStep sets a link down that has something to lose by it.
func downStep(on subject, was Running) reconcile.Step {
	s := step(stepUp, on, "", was, Running{}, "set %s down", on.name)
	s.Disruption = reconcile.LinkFlap
	return s
}

// Down is the step that sets a link down.
func (s *State) Down(name string) (reconcile.Step, bool) {
	link, found := s.Link(name)
	if !found {
		return reconcile.Step{}, false
	}
	return downStep(subject{name: name, identity: link.Identity()}, s.running(link)), true
}

// IsDown reports whether a step sets a link down.
func IsDown(s reconcile.Step) bool {
	return s.Kind == stepUp && same(stepUp, s.Want, reconcile.Value(Running{}))
}

// same compares two values of a property. Of a link that is up, it does not
// matter what it would lose; of a port, not whether it is up.
func same(kind string, a, b json.RawMessage) bool {
	switch kind {
	case stepUp:
		one, err := reconcile.Read[Running](a)
		other, err2 := reconcile.Read[Running](b)
		return err == nil && err2 == nil && one.Up == other.Up
	case stepMaster:
		one, err := reconcile.Read[Attachment](a)
		other, err2 := reconcile.Read[Attachment](b)
		return err == nil && err2 == nil && one.Master == other.Master && slices.Equal(one.VLANs, other.VLANs)
	}
	return reconcile.Same(a, b)
}

// itemStep adds or removes one of several: an altname, an address, a route.
func itemStep(kind string, on subject, item string, present bool) reconcile.Step {
	word := map[string]string{stepAltname: "altname", stepAddress: "address", stepRoute: "route"}[kind]
	if present {
		return step(kind, on, item, false, true, "add %s %s to %s", word, item, on.name)
	}
	s := step(kind, on, item, true, false, "remove %s %s from %s", word, item, on.name)
	if kind != stepAltname {
		s.Disruption = reconcile.LinkFlap
	}
	return s
}

// masterStep moves a link from one attachment to another. To enter or leave a
// bond takes a link down for a moment.
func masterStep(on subject, was, want Attachment, bond bool) reconcile.Step {
	text := fmt.Sprintf("make %s a port of %s", on.name, want.Master)
	switch {
	case want.Master == "":
		text = fmt.Sprintf(textDetached, on.name, was.Master)
	case want.Master == was.Master:
		text = fmt.Sprintf("let VLANs %s pass through %s into %s, instead of %s", orNone(want.VLANs), on.name, want.Master, orNone(was.VLANs))
	case len(want.VLANs) > 0:
		text += ", VLANs " + strings.Join(want.VLANs, " ")
	}
	s := step(stepMaster, on, "", was, want, "%s", text)
	if was.Master != "" || bond && was.Up {
		s.Disruption = reconcile.LinkFlap
	}
	return s
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "(none)"
	}
	return strings.Join(list, " ")
}
