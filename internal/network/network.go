package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// Network is the network of one host.
type Network struct {
	Dir        string // where journal and originals are kept
	Links      *hostnet.Host
	VFs        sriov.Host
	Neighbours Neighbours
	Labels     map[string]string // of the node
	APIServer  string            // HOST:PORT; empty: not known
	Now        func() time.Time
	Log        *slog.Logger
}

// View is the host as it is, and what is to be done for some policies.
type View struct {
	Links    hostnet.State
	VFs      sriov.State
	Plan     reconcile.Plan
	Specs    []sriov.Spec           // what the virtual functions shall be
	Policies []v1alpha1.HostNetwork // those that are for this node
	Cards    []hostnet.Card         // their interfaces, and the cards that these are here
	Ours     []reconcile.Step       // what is ours, and what was there before
	probes   probes
}

// Plan looks at the host, and returns what is to be done for policies. It
// changes nothing.
func (n *Network) Plan(ctx context.Context, policies []v1alpha1.HostNetwork) (View, error) {
	ours, err := reconcile.ReadState(n.Dir)
	if err != nil {
		return View{}, err
	}
	view := View{}
	if view.Links, err = n.Links.Observe(ctx); err != nil {
		return View{}, err
	}
	var notes []string
	if view.Policies, notes, err = n.selected(policies); err != nil {
		return View{}, err
	}
	spec, refusals := hostnet.Resolve(view.Policies, &view.Links)
	view.Cards, view.Ours = spec.Cards, ours.Originals
	specs, more := cardsOf(spec.Cards, view.Policies)
	view.Specs = specs
	refusals = append(refusals, more...)
	var vfs reconcile.Plan
	if view.VFs, err = sriov.Observe(ctx, n.VFs); err != nil {
		if len(specs) > 0 || hasVFs(ours) {
			return View{}, fmt.Errorf("observe virtual functions: %w", err)
		}
		notes = append(notes, fmt.Sprintf("virtual functions could not be read: %v", err))
	} else {
		vfs = sriov.Plan(specs, view.VFs, ours.Originals)
	}
	view.probes, more = n.probesOf(view.Policies, &view.Links)
	refusals = append(refusals, more...)
	before, after := split(hostnet.Plan(spec, view.Links, ours))
	view.Plan = reconcile.Join(before, vfs, after, reconcile.Plan{Refusals: refusals, Notes: notes}).Restrict(hostnet.Disruptive(view.Policies))
	return view, nil
}

// selected returns the policies that are for this node, and says of the others
// that they are not.
func (n *Network) selected(policies []v1alpha1.HostNetwork) (mine []v1alpha1.HostNetwork, notes []string, err error) {
	for _, policy := range policies {
		selected, err := policy.Selects(n.Labels)
		if err != nil {
			return nil, nil, err
		}
		if selected {
			mine = append(mine, policy)
		} else {
			notes = append(notes, fmt.Sprintf("policy %s is not for this node: its nodeSelector does not match the labels %v", policy.Name, n.Labels))
		}
	}
	return mine, notes, nil
}

// split puts what sets cards down apart: their virtual functions go before.
func split(plan reconcile.Plan) (before, after reconcile.Plan) {
	before = plan
	before.Steps = nil
	for _, step := range plan.Steps {
		if hostnet.IsDown(step) {
			after.Steps = append(after.Steps, step)
		} else {
			before.Steps = append(before.Steps, step)
		}
	}
	return before, after
}

func hasVFs(ours reconcile.State) bool {
	return slices.ContainsFunc(ours.Originals, func(o reconcile.Step) bool { return o.Writer() == sriov.WriterName })
}

// cardsOf returns what is wanted of the virtual functions of each card. The
// cards come in order of their policies' priority.
func cardsOf(cards []hostnet.Card, policies []v1alpha1.HostNetwork) ([]sriov.Spec, []reconcile.Refusal) {
	priority := make(map[string]int)
	for _, policy := range policies {
		priority[policy.Name] = policy.Spec.Priority
	}
	var specs []sriov.Spec
	var refusals []reconcile.Refusal
	first := make(map[string]hostnet.Card)
	for _, card := range cards {
		if card.Interface.SRIOV == nil {
			continue
		}
		refuse := func(guard, format string, args ...any) {
			refusals = append(refusals, reconcile.Refusal{Guard: guard, Target: card.Link, Policy: card.Policy, Message: fmt.Sprintf(format, args...)})
		}
		if card.PCIAddress == "" {
			refuse("capability", "no PCI device is behind it, and so it has no virtual functions")
			continue
		}
		before, known := first[card.PCIAddress]
		switch {
		case !known:
		case string(reconcile.Value(before.Interface.SRIOV)) == string(reconcile.Value(card.Interface.SRIOV)), priority[before.Policy] > priority[card.Policy]:
			continue
		default:
			refuse("conflict", "the policies %s and %s want different virtual functions of it, with the same priority: change one, or give them priorities", before.Policy, card.Policy)
			continue
		}
		first[card.PCIAddress] = card
		spec, err := sriov.NewSpec(card.Policy, card.PCIAddress, *card.Interface.SRIOV)
		if err != nil {
			refuse("policy", "%v", err)
			continue
		}
		specs = append(specs, spec)
	}
	return specs, refusals
}

// Ask says who wants a change, and which one exactly.
type Ask struct {
	Who   string
	Plan  string // the hash of the plan that was looked at; empty: whatever is to be done
	Again bool   // although the same plan cut the node off before
}

// Apply carries out what is to be done for policies, or nothing of it. What a
// run before left unfinished is ended first.
func (n *Network) Apply(ctx context.Context, ask Ask, policies []v1alpha1.HostNetwork) (reconcile.Outcome, error) {
	if outcome, err := n.Recover(ctx); err != nil || outcome.Result == reconcile.Stuck {
		return outcome, err
	}
	view, err := n.Plan(ctx, policies)
	if err != nil {
		return reconcile.Outcome{}, err
	}
	if hash := view.Plan.Hash(); ask.Plan != "" && ask.Plan != hash {
		return reconcile.Outcome{}, &reconcile.Refusal{
			Guard: "plan", Target: "plan " + ask.Plan, Message: "the host or the policy has changed since: what is to be done now is plan " + hash + "; look at it first",
		}
	}
	if len(view.Plan.Steps) > 0 && len(view.Plan.Refusals) == 0 {
		if err := n.refuseSilent(ctx, view.probes); err != nil {
			return reconcile.Outcome{}, err
		}
	}
	request := reconcile.Request{Who: ask.Who, Again: ask.Again, Probes: reconcile.Value(view.probes)}
	for _, policy := range view.Policies {
		request.Policies = append(request.Policies, policy.Name)
	}
	loop, err := n.loop()
	if err != nil {
		return reconcile.Outcome{}, err
	}
	loop.Verify = func(ctx context.Context) (reconcile.Plan, error) {
		now, err := n.Plan(ctx, policies)
		return now.Plan, err
	}
	return loop.Apply(ctx, request, view.Plan)
}

// Recover ends what a run before left unfinished.
func (n *Network) Recover(ctx context.Context) (reconcile.Outcome, error) {
	loop, err := n.loop()
	if err != nil {
		return reconcile.Outcome{}, err
	}
	outcome, err := loop.Recover(ctx)
	if err == nil && outcome.Result != reconcile.Converged {
		n.Log.Warn("unfinished change of the network ended", "result", string(outcome.Result), "transaction", outcome.Transaction,
			"cause", outcome.Cause, "left", outcome.Left)
	}
	return outcome, err
}

func (n *Network) loop() (*reconcile.Loop, error) {
	boot, err := n.boot()
	if err != nil {
		return nil, err
	}
	ours, err := reconcile.ReadState(n.Dir)
	if err != nil {
		return nil, err
	}
	return &reconcile.Loop{
		Dir: n.Dir,
		Writers: map[string]reconcile.Writer{
			hostnet.WriterName: &hostnet.Writer{Host: n.Links, Originals: ours.Originals},
			sriov.WriterName: sriov.Writer{Host: n.VFs, Progress: func(text string) {
				n.Log.Info("write takes long", "write", text)
			}},
		},
		Confirm: n.confirm,
		Audit:   n.audit,
		Now:     n.Now,
		Boot:    boot,
	}, nil
}

// boot names this run of the kernel (proc(5), /proc/sys/kernel/random/boot_id).
func (n *Network) boot() (string, error) {
	id, err := n.Links.Root.ReadString("/proc/sys/kernel/random/boot_id")
	if hostfs.Absent(err) || errors.Is(err, hostfs.ErrNotMounted) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("tell this boot from others: %w", err)
	}
	return id, nil
}

// audit writes the one line per write to the host.
func (n *Network) audit(w reconcile.Write) {
	attrs := []any{
		"who", w.Request.Who, "policies", strings.Join(w.Request.Policies, ","), "plan", w.Request.Plan, "transaction", w.Transaction,
		"step", w.Step.Text, "kind", w.Step.Kind, "target", w.Step.Target, "undo", w.Undo, "before", string(w.Before), "after", string(w.After),
	}
	if w.Err != nil {
		n.Log.Error("network write failed", append(attrs, "error", w.Err)...)
		return
	}
	n.Log.Info("network write", attrs...)
}

// Uplink lists the links without which the node cannot be reached, with reasons.
func (v View) Uplink() []string {
	members := v.Links.Uplink()
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		lines = append(lines, name+": "+members[name])
	}
	return lines
}
