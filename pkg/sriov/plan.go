package sriov

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/reconcile"
)

// Plan returns the steps from a state to what the specs want, PF by PF, and
// for what nobody wants any more back to what was there before: the originals.
//
// New VFs get no driver until their attributes are set: most drivers read
// their MAC when they are bound, and no network manager of the host sees the
// interface of a VF that is meant for a VM.
func Plan(specs []Spec, state State, originals []reconcile.Step) reconcile.Plan {
	p := planner{state: state, sets: make(map[string]reconcile.Step), before: make(map[string]map[int]*before), refused: make(map[[2]string]bool)}
	for _, original := range originals {
		if original.Writer() == WriterName {
			p.remember(original)
		}
	}
	var wanted []string
	for _, spec := range specs {
		wanted = append(wanted, spec.PF)
		pf, found := state.Find(spec.PF)
		if !found {
			p.refuse(&reconcile.Refusal{
				Guard: "capability", Target: spec.PF, Policy: spec.Policy,
				Message: "no PF with SR-IOV was found there", Evidence: []string{pciDevices + "/" + spec.PF},
			}, spec.Policy)
			continue
		}
		p.planPF(pf, spec)
	}
	for _, pf := range state.PFs {
		if !slices.Contains(wanted, pf.Address) {
			p.restorePF(pf)
		}
	}
	return p.plan
}

type planner struct {
	state   State
	sets    map[string]reconcile.Step  // originals of PFs, by address
	before  map[string]map[int]*before // originals of VFs, by address of the PF and index
	plan    reconcile.Plan
	refused map[[2]string]bool // guard and target: said once
	name    string             // of the PF that is being planned
}

// add makes room for all steps with the first: to grow is what costs most.
func (p *planner) add(step reconcile.Step) {
	if p.plan.Steps == nil {
		room := 0
		for i := range p.state.PFs {
			room += 4 + 2*len(p.state.PFs[i].VFs)
		}
		p.plan.Steps = make([]reconcile.Step, 0, room)
	}
	p.plan.Steps = append(p.plan.Steps, step)
}

func (p *planner) refuse(refusal *reconcile.Refusal, policy string) {
	if refusal == nil || p.refused[[2]string{refusal.Guard, refusal.Target}] {
		return
	}
	p.refused[[2]string{refusal.Guard, refusal.Target}] = true
	refusal.Policy = policy
	p.plan.Refusals = append(p.plan.Refusals, *refusal)
}

// target is what one PF shall be: of a spec, or of the originals.
type target struct {
	policy string
	set    vfSet
	vfs    []wish // by index
}

// wish is what is wanted of one VF. What is empty is left as it is.
type wish struct {
	driver     string
	attributes Attributes
	mtu        int
}

// planPF plans for a spec. What no pool wants of a VF goes back.
func (p *planner) planPF(pf PFState, spec Spec) {
	want := target{policy: spec.Policy, set: vfSet{Count: spec.NumVFs}, vfs: make([]wish, spec.NumVFs)}
	pools := spec.pools()
	for index := range spec.NumVFs {
		pool := pools[index]
		if pool == nil {
			want.vfs[index] = p.original(pf, index)
			continue
		}
		driver := pool.Driver
		if driver == "" {
			driver = kernelsChoice
		}
		want.vfs[index] = wish{driver, pool.Attributes, pool.MTU}
	}
	p.planTarget(pf, want)
}

// restorePF plans back to what was there before the first policy.
func (p *planner) restorePF(pf PFState) {
	want := target{set: vfSet{Count: pf.NumVFs}}
	if original, ours := p.sets[pf.Address]; ours {
		if set, is := was[vfSet](p, original); is {
			want.set = set
		}
		if want.set.Count == pf.NumVFs {
			p.plan.Forget = append(p.plan.Forget, original.Key())
			want.set.VFs = nil // what was changed of them since has originals of its own
		}
	}
	p.forgetBeyond(pf, want.set.Count)
	want.vfs = make([]wish, want.set.Count)
	for index := range want.vfs {
		want.vfs[index] = p.original(pf, index)
	}
	for i, was := range want.set.VFs {
		if was.Index >= 0 && was.Index < len(want.vfs) {
			want.set.VFs[i] = was.with(want.vfs[was.Index])
		}
	}
	if len(want.set.VFs) > 0 {
		clear(want.vfs) // all is in the set
	}
	p.planTarget(pf, want)
}

// with returns the setting of a VF with what is wanted otherwise.
func (s setting) with(w wish) setting {
	s.Attributes = s.Attributes.over(w.attributes)
	if w.driver != "" {
		s.Binding = binding{Driver: w.driver}
	}
	if w.mtu != 0 {
		s.Binding.MTU = w.mtu
	}
	return s
}

// planTarget plans one PF. Drivers that are named are bound while new VFs get
// none by themselves, the kernel's choice when they would.
func (p *planner) planTarget(pf PFState, want target) {
	p.name = pf.Name()
	create := want.set.Count != pf.NumVFs
	autoprobe := pf.Autoprobe
	if create {
		if autoprobe && want.set.Count > 0 {
			p.add(autoprobeStep(pf, want.policy, true, false))
			autoprobe = false
		}
		p.planCount(pf, want)
	}
	vfs := make([]*VFState, want.set.Count)
	for i := range pf.VFs {
		if index := pf.VFs[i].Index; !create && index < len(vfs) {
			vfs[index] = &pf.VFs[i]
		}
	}
	for index := range vfs {
		if vfs[index] == nil {
			vfs[index] = &VFState{VF: VF{Index: index}} // one that is to be made
		}
	}
	for _, vf := range vfs {
		p.planAttributes(&pf, vf, want, create)
	}
	var choices []*VFState
	for _, vf := range vfs {
		driver := want.vfs[vf.Index].driver
		if create && driver == "" && pf.Autoprobe && len(want.set.VFs) == 0 {
			driver = anyOrNone // as when they had been made by hand
			want.vfs[vf.Index] = wish{driver, Attributes{}, 0}
		}
		switch driver {
		case "":
		case kernelsChoice, anyOrNone:
			choices = append(choices, vf)
		default:
			p.planDriver(&pf, vf, want.policy, driver, create)
		}
	}
	choices = slices.DeleteFunc(choices, func(vf *VFState) bool { return bindingOf(vf).satisfies(kernelsChoice) })
	if len(choices) > 0 && !autoprobe {
		p.add(autoprobeStep(pf, want.policy, false, true))
		autoprobe = true
	}
	for _, vf := range choices {
		p.planDriver(&pf, vf, want.policy, want.vfs[vf.Index].driver, create)
	}
	for _, vf := range vfs {
		p.planMTU(&pf, vf, want, create)
	}
	if autoprobe != pf.Autoprobe {
		p.add(autoprobeStep(pf, want.policy, autoprobe, pf.Autoprobe))
	}
}

func autoprobeStep(pf PFState, policy string, was, want bool) reconcile.Step {
	verb := "keep drivers off"
	if want {
		verb = "let drivers find"
	}
	return newStep(kindAutoprobe, pf.Address, "", policy, was, want, fmt.Sprintf("%s new VFs of %s", verb, pf.Name()))
}

// planCount plans another number of VFs, and says who suffers.
func (p *planner) planCount(pf PFState, want target) {
	p.refuse(guardCount(pf, want.set.Count), want.policy)
	text := fmt.Sprintf("create %d VFs on %s", want.set.Count, pf.Name())
	switch {
	case want.set.Count == 0:
		text = fmt.Sprintf("remove the %d VFs of %s", pf.NumVFs, pf.Name())
	case pf.NumVFs > 0:
		text = fmt.Sprintf("destroy the %d VFs of %s and create %d", pf.NumVFs, pf.Name(), want.set.Count)
	}
	step := newStep(kindVFs, pf.Address, "", want.policy, snapshot(pf), want.set, text)
	for _, user := range pf.Users {
		step.Disruption = reconcile.LinkFlap // most cards start anew
		step.Hits = append(step.Hits, user.String())
	}
	for _, vf := range pf.VFs {
		step.Disruption = reconcile.VFRecreate
		hit := []string{vf.Name()}
		if vf.Driver != "" {
			hit[0] += " on " + vf.Driver
		}
		for _, user := range vf.Users {
			hit = append(hit, user.String())
		}
		step.Hits = append(step.Hits, strings.Join(hit, ": "))
	}
	p.add(step)
}

func (p *planner) planAttributes(pf *PFState, vf *VFState, want target, create bool) {
	attributes := want.vfs[vf.Index].attributes
	change := changed(vf.Attributes, attributes)
	if create {
		change = attributes
	}
	if change.isZero() {
		return
	}
	var was any
	full := attributes
	if !create {
		was, full = &vf.Attributes, vf.Attributes.over(attributes)
		p.refuse(guardVF(pf.PF, *vf), want.policy)
	}
	p.add(newStep(kindAttributes, pf.Address, vfItem(vf.Index), want.policy, was, &full, "set VF "+vfItem(vf.Index)+" of "+p.name+": "+change.String()))
}

func (p *planner) planDriver(pf *PFState, vf *VFState, policy, driver string, create bool) {
	if bindingOf(vf).satisfies(driver) {
		return // a new VF has none
	}
	var was any
	if create {
		if refusal := guardLoaded(driver, p.state.Drivers); refusal != nil {
			refusal.Target = fmt.Sprintf("VF %d of %s", vf.Index, p.name)
			p.refuse(refusal, policy)
		}
	} else {
		was = bindingOf(vf)
		p.refuse(guardVF(pf.PF, *vf), policy)
		p.refuse(guardDriver(pf.PF, *vf, driver, p.state.Drivers), policy)
	}
	text := fmt.Sprintf("bind VF %d of %s to %s", vf.Index, p.name, driver)
	switch driver {
	case kernelsChoice, anyOrNone:
		text = fmt.Sprintf("let the kernel choose the driver of VF %d of %s", vf.Index, p.name)
	case noDriver:
		text = fmt.Sprintf("take the driver from VF %d of %s", vf.Index, p.name)
	}
	p.add(newStep(kindDriver, pf.Address, vfItem(vf.Index), policy, was, binding{Driver: driver}, text))
}

func (p *planner) planMTU(pf *PFState, vf *VFState, want target, create bool) {
	mtu := want.vfs[vf.Index].mtu
	elsewhere := vf.Driver != "" && !isVFIO(vf.Driver, nil) && len(vf.Netdevs) == 0
	if mtu == 0 || !create && (vf.MTU == mtu || elsewhere) {
		return // or nobody can tell
	}
	var was any
	if !create && vf.MTU != 0 {
		was = vf.MTU
		p.refuse(guardVF(pf.PF, *vf), want.policy)
	}
	p.add(newStep(kindMTU, pf.Address, vfItem(vf.Index), want.policy, was, mtu, fmt.Sprintf("set the MTU of VF %d of %s to %d", vf.Index, p.name, mtu)))
}
