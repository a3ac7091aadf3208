package sriov

import (
	"fmt"
	"maps"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// before is what a VF was before the first policy, as far as one has changed
// it: the originals of its properties.
type before struct{ attributes, driver, mtu *reconcile.Step }

// remember puts an original where it is found.
func (p *planner) remember(original reconcile.Step) {
	switch original.Kind {
	case kindVFs:
		p.sets[original.Target] = original
		return
	case kindAutoprobe:
		return // as it was, since the end of the plan that changed it
	}
	index, err := itemVF(original.Item)
	if p.before[original.Target] == nil {
		p.before[original.Target] = make(map[int]*before)
	}
	of := p.before[original.Target][index]
	if of == nil {
		of = new(before)
	}
	switch original.Kind {
	case kindAttributes:
		of.attributes = &original
	case kindDriver:
		of.driver = &original
	case kindMTU:
		of.mtu = &original
	default:
		err = fmt.Errorf("nobody knows the property %s", original.Kind)
	}
	if err != nil {
		p.unreadable(original, err)
		return
	}
	p.before[original.Target][index] = of
}

// unreadable refuses to plan with an original that another version of the
// agent may have written.
func (p *planner) unreadable(original reconcile.Step, err error) {
	p.refuse(&reconcile.Refusal{Guard: "originals", Target: original.Key(), Message: err.Error()}, "")
}

// was returns what an original says that there was, if there was anything.
func was[T any](p *planner, original reconcile.Step) (value T, is bool) {
	value, is, err := known[T](original.Was)
	if err != nil {
		p.unreadable(original, err)
	}
	return value, is
}

// original returns what a VF was before the first policy, as far as a policy
// has changed it, and forgets what is so again.
func (p *planner) original(pf PFState, index int) wish {
	var wanted wish
	of := p.before[pf.Address][index]
	if of == nil {
		return wanted
	}
	vf, there := pf.VF(index)
	forget := func(step *reconcile.Step) { p.plan.Forget = append(p.plan.Forget, step.Key()) }
	if of.attributes != nil {
		attributes, is := was[Attributes](p, *of.attributes)
		if !is {
			attributes = fresh(vf.Attributes)
		}
		attributes.MAC = "" // no policy's matter
		wanted.attributes = attributes
		if there && changed(vf.Attributes, attributes).isZero() {
			forget(of.attributes)
		}
	}
	if of.driver != nil {
		if before, is := was[binding](p, *of.driver); is {
			wanted.driver, wanted.mtu = before.Driver, before.MTU
		} else {
			wanted.driver = anyOrNone
		}
		if there && bindingOf(&vf).satisfies(wanted.driver) {
			forget(of.driver)
		}
	}
	if of.mtu != nil {
		if mtu, is := was[int](p, *of.mtu); is {
			wanted.mtu = mtu
		}
		if there && (wanted.mtu == 0 || vf.MTU == wanted.mtu) {
			forget(of.mtu)
		}
	}
	return wanted
}

// forgetBeyond forgets what VFs were that are gone, and were not there before
// either.
func (p *planner) forgetBeyond(pf PFState, count int) {
	if pf.NumVFs != count {
		return
	}
	for _, index := range slices.Sorted(maps.Keys(p.before[pf.Address])) {
		of := p.before[pf.Address][index]
		for _, step := range []*reconcile.Step{of.attributes, of.driver, of.mtu} {
			if step != nil && index >= count {
				p.plan.Forget = append(p.plan.Forget, step.Key())
			}
		}
	}
}

// fresh returns, of the attributes that there are, what drivers give to new
// VFs: what one had that a policy has made.
func fresh(have Attributes) Attributes {
	var a Attributes
	if have.VLAN != nil {
		a.VLAN, a.QoS = new(0), new(0)
	}
	if have.MinTxRate != nil {
		a.MinTxRate = new(0)
	}
	if have.MaxTxRate != nil {
		a.MaxTxRate = new(0)
	}
	if have.SpoofCheck != nil {
		a.SpoofCheck = new(true)
	}
	if have.Trust != nil {
		a.Trust = new(false)
	}
	if have.LinkState != "" {
		a.LinkState = "auto"
	}
	return a
}
