package hostnet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Writer makes the steps of this package.
type Writer struct {
	Host *Host
	// Originals is what is ours, so that it does not stand in its own way.
	Originals []reconcile.Step
}

// Guard looks at the host anew: is the target still the link that was meant,
// is it as it was when the plan was made, and does a guard forbid the step?
func (w *Writer) Guard(ctx context.Context, s reconcile.Step) error {
	state, err := w.Host.Observe(ctx)
	if err != nil {
		return err
	}
	refuse := func(guard, message string) error {
		return &reconcile.Refusal{Guard: guard, Target: s.Target, Policy: s.Policy, Message: s.Text + ": " + message}
	}
	link, exists := state.Link(s.Target)
	switch {
	case exists && link.Identity() != s.Identity:
		return refuse("identity", fmt.Sprintf("%s is another link now, %s", s.Target, link.Identity()))
	case !exists && s.Kind != stepDevice:
		return refuse("identity", "there is no such link any more")
	case exists && s.Kind == stepDevice && reconcile.Same(s.Was, nil):
		return refuse("foreign", "somebody has made a link of this name by now")
	case exists && s.Kind != stepDevice:
		if now := state.value(s.Kind, link, s.Item); !same(s.Kind, now, s.Was) && !same(s.Kind, now, s.Want) && s.Kind != stepMaster {
			return refuse("changed", fmt.Sprintf("it was %s when the plan was made, and is %s now", s.Was, now))
		}
	}
	g := &guard{state: &state, uplink: state.Uplink(), mine: portsOfOurs(w.Originals)}
	if refusal := g.forbids(s); refusal != nil {
		return refusal
	}
	return nil
}

// Apply makes a step, and returns what the kernel has then.
func (w *Writer) Apply(ctx context.Context, s reconcile.Step) (json.RawMessage, error) {
	if err := w.move(ctx, s); err != nil {
		return nil, err
	}
	state, err := w.Host.Kernel.Dump(ctx, nil)
	if err != nil {
		return nil, err
	}
	link, exists := state.Link(s.Target)
	now := json.RawMessage("null")
	if exists {
		now = state.value(s.Kind, link, s.Item)
	}
	if !made(s, now) {
		return now, fmt.Errorf("the kernel has %s, and not %s", now, s.Want)
	}
	return now, nil
}

// made compares what is with what is wanted, less what is left to the kernel.
func made(s reconcile.Step, now json.RawMessage) bool {
	if s.Kind != stepDevice || reconcile.Same(now, nil) || reconcile.Same(s.Want, nil) {
		return same(s.Kind, now, s.Want)
	}
	have, err := reconcile.Read[Device](now)
	want, err2 := reconcile.Read[Device](s.Want)
	return err == nil && err2 == nil && have.alike(want) && (want.MTU == 0 || have.MTU == want.MTU) && (want.Up == have.Up) &&
		within(want.Altnames, have.Altnames) && within(want.Addresses, have.Addresses) && within(want.Routes, have.Routes)
}

func within(some, all []string) bool {
	return !slices.ContainsFunc(some, func(item string) bool { return !slices.Contains(all, item) })
}

// Undo brings a link back to what it was. It removes only what the step made.
func (w *Writer) Undo(ctx context.Context, s reconcile.Step) error {
	state, err := w.Host.Observe(ctx)
	if err != nil {
		return err
	}
	link, exists := state.Link(s.Target)
	if exists && s.Kind == stepDevice && reconcile.Same(s.Was, nil) {
		made, err := reconcile.Read[Device](s.Want)
		if err != nil {
			return err
		}
		if !state.device(link).alike(made) {
			return nil // somebody else's, of the same name: ours is not there
		}
		g := &guard{state: &state, mine: portsOfOurs(w.Originals)}
		back := deleteStep(subject{s.Target, s.Identity, s.Policy}, made)
		if users := g.users(s.Target); users != nil {
			return &reconcile.Refusal{Guard: "in-use", Target: s.Target, Policy: s.Policy, Message: back.Text + ": others use it by now", Evidence: users}
		}
	}
	if !exists && s.Kind != stepDevice {
		found, known := state.Identified(s.Identity)
		if !known {
			return nil // it went, and what it was with it
		}
		s.Target = found.Name // renamed
	}
	_, err = w.Apply(ctx, s.Reverse())
	return err
}

// move does what is missing between what a link is and what a step wants.
func (w *Writer) move(ctx context.Context, s reconcile.Step) error {
	state, err := w.Host.Kernel.Dump(ctx, nil)
	if err != nil {
		return err
	}
	m := &mover{kernel: w.Host.Kernel, state: &state, name: s.Target}
	link, exists := state.Link(s.Target)
	if s.Kind == stepDevice {
		if reconcile.Same(s.Want, nil) {
			if exists {
				m.do(ctx, Op{Do: DeleteLink})
			}
			return m.err
		}
		return readThen(s, func(want Device) error { return m.device(ctx, link, want) })
	}
	if !exists {
		return fmt.Errorf("%s: %w", s.Target, ErrNoLink)
	}
	switch s.Kind {
	case stepMTU:
		return readThen(s, func(want int) error { return m.mtu(ctx, link.MTU, want) })
	case stepUp:
		return readThen(s, func(want Running) error { return m.running(ctx, link, want) })
	case stepAltname:
		return readThen(s, func(want bool) error { return m.item(ctx, s.Item, link.Altnames, want, AddAltname, DeleteAltname) })
	case stepAddress:
		return readThen(s, func(want bool) error { return m.item(ctx, s.Item, link.Addresses, want, AddAddress, DeleteAddress) })
	case stepRoute:
		return readThen(s, func(want bool) error {
			return m.item(ctx, s.Item, state.RoutesOf(s.Target), want, AddRoute, DeleteRoute)
		})
	case stepOptions:
		return readThen(s, func(want options) error { return m.options(ctx, link, want) })
	case stepMaster:
		return readThen(s, func(want Attachment) error { return m.master(ctx, link, want) })
	}
	return fmt.Errorf("%s is no kind of step", s.Kind)
}

func readThen[T any](s reconcile.Step, then func(want T) error) error {
	want, err := reconcile.Read[T](s.Want)
	if err != nil {
		return err
	}
	return then(want)
}

// mover carries operations on one link out until one fails.
type mover struct {
	kernel Kernel
	state  *State
	name   string
	err    error
}

func (m *mover) do(ctx context.Context, op Op) {
	if m.err == nil {
		op.Link = m.name
		if (op.Do == AddRoute || op.Do == DeleteRoute) && op.Route == nil {
			op.Route = &Route{Destination: op.Text, Link: m.name, Source: "static"}
		}
		m.err = m.kernel.Do(ctx, op)
	}
}

// device makes a link, or what is missing of one that was half made.
func (m *mover) device(ctx context.Context, link *Link, want Device) error {
	have := Device{MTU: want.MTU}
	if link == nil {
		m.do(ctx, Op{Do: AddLink, Device: &want})
	} else {
		if have = m.state.device(link); !have.alike(want) {
			return fmt.Errorf("there is another link of this name, a %s", orCard(link.Kind))
		}
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		m.do(ctx, Op{Do: SetMTU, Number: want.MTU})
	}
	for _, altname := range want.Altnames {
		m.add(ctx, AddAltname, altname, have.Altnames)
	}
	if want.Up && !have.Up {
		m.do(ctx, Op{Do: SetUp})
	}
	for _, address := range want.Addresses {
		m.add(ctx, AddAddress, address, have.Addresses)
	}
	for _, route := range want.Routes {
		m.add(ctx, AddRoute, route, have.Routes)
	}
	return m.err
}

func (m *mover) add(ctx context.Context, verb Verb, item string, have []string) {
	if !slices.Contains(have, item) {
		m.do(ctx, Op{Do: verb, Text: item})
	}
}

func (m *mover) mtu(ctx context.Context, have, want int) error {
	if have != want {
		m.do(ctx, Op{Do: SetMTU, Number: want})
	}
	return m.err
}

// running sets a link up, with what it had, or down.
func (m *mover) running(ctx context.Context, link *Link, want Running) error {
	if link.Up && !want.Up {
		m.do(ctx, Op{Do: SetDown})
		return m.err
	}
	if want.Up && !link.Up {
		m.do(ctx, Op{Do: SetUp})
	}
	for _, address := range want.Addresses {
		m.add(ctx, AddAddress, address, link.Addresses)
	}
	have := m.state.running(link).Routes
	for _, route := range want.Routes {
		if !slices.Contains(have, route) {
			m.do(ctx, Op{Do: AddRoute, Route: &route})
		}
	}
	return m.err
}

func (m *mover) item(ctx context.Context, item string, have []string, want bool, add, remove Verb) error {
	switch present := slices.Contains(have, item); {
	case want && !present:
		m.do(ctx, Op{Do: add, Text: item})
	case present && !want:
		m.do(ctx, Op{Do: remove, Text: item})
	}
	return m.err
}

func (m *mover) options(ctx context.Context, link *Link, want options) error {
	if link.Kind == KindBridge && link.VLANFiltering != want.VLANFiltering {
		number := 0
		if want.VLANFiltering {
			number = 1
		}
		m.do(ctx, Op{Do: SetFiltering, Number: number})
	}
	if want.Bond != nil && link.Bond != nil && *link.Bond != *want.Bond {
		m.do(ctx, Op{Do: SetBond, Device: &Device{Kind: KindBond, Bond: want.Bond}})
	}
	return m.err
}

// master moves a link into, out of, or between bridges and bonds. A bond takes
// only links that are down, and leaves them down.
func (m *mover) master(ctx context.Context, link *Link, want Attachment) error {
	up := link.Up
	if link.Master != want.Master {
		if link.Master != "" {
			m.do(ctx, Op{Do: SetMaster})
			old, found := m.state.Link(link.Master)
			up = up && (!found || old.Kind != KindBond)
		}
		if master, found := m.state.Link(want.Master); found && master.Kind == KindBond && up {
			m.do(ctx, Op{Do: SetDown})
			up = false
		}
		if want.Master != "" {
			m.do(ctx, Op{Do: SetMaster, Text: want.Master})
		}
		link = &Link{}
	}
	for _, tags := range difference(link.PortVLANs, want.VLANs) {
		m.do(ctx, Op{Do: DeleteVLANs, Text: tags})
	}
	for _, tags := range difference(want.VLANs, link.PortVLANs) {
		m.do(ctx, Op{Do: AddVLANs, Text: tags})
	}
	if master, found := m.state.Link(want.Master); found && master.Kind == KindBond {
		return m.err // which sets its ports up
	}
	return m.upAgain(ctx, up, want.Up)
}

func (m *mover) upAgain(ctx context.Context, up, want bool) error {
	if want && !up {
		m.do(ctx, Op{Do: SetUp})
	}
	if up && !want {
		m.do(ctx, Op{Do: SetDown})
	}
	return m.err
}

// difference returns the VLANs of one list that are not in the other.
func difference(of, less []string) []string {
	in := make(map[int]bool)
	each(less, func(id int) { in[id] = true })
	var ids []int
	each(of, func(id int) {
		if !in[id] {
			ids = append(ids, id)
		}
	})
	return ranges(ids)
}

func each(list []string, call func(id int)) {
	for _, text := range list {
		first, last, err := v1alpha1.ParseRange(text, 1, 4094)
		for id := first; err == nil && id <= last; id++ {
			call(id)
		}
	}
}
