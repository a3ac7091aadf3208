package hostnet

import (
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// restore brings back what was there before of all that nobody wants otherwise.
func (p *planner) restore() {
	for _, kind := range []string{stepRoute, stepAddress, stepMaster, stepOptions, stepMTU, stepUp} {
		p.restoreKind(kind)
	}
}

func (p *planner) restoreKind(kind string) {
	for _, original := range slices.Backward(p.originals) {
		if original.Kind != kind {
			continue
		}
		k := original.Key()
		if p.said[k] {
			continue
		}
		p.said[k] = true
		link, exists := p.state.Identified(original.Identity)
		switch {
		case exists && p.ownedWhole(link.Name): // its policy says all of it
		case exists && !p.remade[link.Name]:
			p.restoreOne(original, link)
		case !exists && strings.HasPrefix(original.Identity, "name:"):
			p.plan.Forget = append(p.plan.Forget, k) // it went with the link
		}
	}
}

// ownedWhole reports whether we have made a link: then there was nothing
// before that could be brought back.
func (p *planner) ownedWhole(name string) bool {
	_, ours := p.madeByUs(name)
	return ours
}

func (p *planner) restoreOne(original reconcile.Step, link *Link) {
	now := p.state.value(original.Kind, link, original.Item)
	switch {
	case same(original.Kind, now, original.Was):
		p.plan.Forget = append(p.plan.Forget, original.Key())
		return
	case !same(original.Kind, now, original.Want):
		p.note("%s of %s is %s, and not what we made it: it is left alone", strings.TrimPrefix(original.Kind, WriterName+"/"), link.Name, now)
		p.plan.Forget = append(p.plan.Forget, original.Key())
		return
	}
	target := subject{link.Name, link.Identity(), ""}
	switch original.Kind {
	case stepUp:
		if same(stepUp, original.Was, reconcile.Value(Running{Up: true})) {
			p.add(upStep(target))
		} else {
			p.add(downStep(target, p.state.running(link)))
		}
	case stepAltname, stepAddress, stepRoute:
		p.add(itemStep(original.Kind, target, original.Item, reconcile.Same(original.Was, reconcile.Value(true))))
	case stepOptions:
		s := step(stepOptions, target, "", now, original.Was, "change %s back to %s", link.Name, original.Was)
		s.Disruption = reconcile.LinkFlap
		p.add(s)
	case stepMaster:
		was, _ := reconcile.Read[Attachment](now)             // made by value
		want, err := reconcile.Read[Attachment](original.Was) // read from the disk
		if err != nil {
			p.note("%s: %v", original.Key(), err)
			return
		}
		p.add(masterStep(target, was, want, false))
	}
}
