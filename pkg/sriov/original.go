package sriov

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// original returns what a VF was before the first policy, as far as a policy
// has changed it, and forgets what is so again.
func (p *planner) original(pf PFState, index int) wish {
	var was wish
	vf, there := pf.VF(index)
	if step, ours := p.originals[vfKey(kindAttributes, pf, index)]; ours {
		was.attributes = originalAttributes(step, vf.Attributes)
		if there && changed(vf.Attributes, was.attributes).isZero() {
			p.plan.Forget = append(p.plan.Forget, step.Key())
		}
	}
	if step, ours := p.originals[vfKey(kindDriver, pf, index)]; ours {
		if before, is, _ := known[binding](step.Was); is {
			was.driver, was.mtu = before.Driver, before.MTU
		} else {
			was.driver = anyOrNone
		}
		if there && bindingOf(&vf).satisfies(was.driver) {
			p.plan.Forget = append(p.plan.Forget, step.Key())
		}
	}
	if step, ours := p.originals[vfKey(kindMTU, pf, index)]; ours {
		if mtu, is, _ := known[int](step.Was); is {
			was.mtu = mtu
		}
		if there && (was.mtu == 0 || vf.MTU == was.mtu) {
			p.plan.Forget = append(p.plan.Forget, step.Key())
		}
	}
	return was
}

// forgetBeyond forgets what VFs were that are gone, and were not there before
// either.
func (p *planner) forgetBeyond(pf PFState, count int) {
	if pf.NumVFs != count {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(p.originals)) {
		index, err := itemVF(p.originals[key].Item)
		if p.originals[key].Target == pf.Address && err == nil && index >= count {
			p.plan.Forget = append(p.plan.Forget, key)
		}
	}
}

func vfKey(kind string, pf PFState, index int) string {
	return reconcile.Step{Kind: kind, Target: pf.Address, Item: vfItem(index)}.Key()
}

// readable reports that the values of a step are of their types, as those of
// another version of the agent may not be.
func readable(step reconcile.Step) error {
	var was, want error
	switch step.Kind {
	case kindVFs:
		_, _, was = known[vfSet](step.Was)
		_, _, want = known[vfSet](step.Want)
	case kindAutoprobe:
		_, _, was = known[bool](step.Was)
		_, _, want = known[bool](step.Want)
	case kindAttributes:
		_, _, was = known[Attributes](step.Was)
		_, _, want = known[Attributes](step.Want)
	case kindDriver:
		_, _, was = known[binding](step.Was)
		_, _, want = known[binding](step.Want)
	case kindMTU:
		_, _, was = known[int](step.Was)
		_, _, want = known[int](step.Want)
	default:
		return fmt.Errorf("nobody knows the property %s", step.Kind)
	}
	return errors.Join(was, want)
}

// originalAttributes returns the attributes of before. A VF that a policy made
// had none: it gets, of those that it has, what drivers give to new ones. The
// MAC, which is no policy's matter, is left out.
func originalAttributes(step reconcile.Step, have Attributes) Attributes {
	was, is, _ := known[Attributes](step.Was)
	if !is {
		was = fresh(have)
	}
	was.MAC = ""
	return was
}

// fresh returns, of the attributes that there are, what new VFs have.
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
