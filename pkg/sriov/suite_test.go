package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// bed is a host with an idle igb PF of up to seven VFs, real or not. The suite
// holds for every one.
type bed interface {
	host() sriov.Host
	pf() string // its address
	slow() bool // to make VFs takes seconds
	// takeAway moves a VF's interface to another network namespace, until back is called.
	takeAway(t *testing.T, index int) (back func())
	// hold lets a process hold a VF's VFIO group, until release is called.
	hold(t *testing.T, index int) (release func())
}

// suite runs on a fresh bed each time.
func suite(t *testing.T, fresh func(t *testing.T) bed) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, bed){
		"VFs are made, set and taken back":                      makeAndRestore,
		"pools change without recreating VFs":                   repartition,
		"growth needs leave, and says who suffers":              grow,
		"a VF in another namespace is not touched":              leaveTaken,
		"a VF that a process holds is not touched":              leaveHeld,
		"what the card cannot do is refused and undone":         undoUnsupported,
		"a failure at any write ends in the state before":       undoEveryFailure,
		"the kernel's own refusals come through":                errnos,
		"walks between specs converge and come back":            walk,
		"a VF that was set up by hand comes back as it was":     restoreForeign,
		"what is undone by hand is planned again, as it drifts": drift,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// agent is what carries plans out on a bed.
type agent struct {
	bed
	dir string
}

func newAgent(t *testing.T, b bed) *agent {
	t.Helper()
	return &agent{bed: b, dir: onMemory(t)}
}

func (a *agent) plan(t *testing.T, specs ...sriov.Spec) reconcile.Plan {
	t.Helper()
	plan, err := a.replan(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func (a *agent) replan(ctx context.Context, specs []sriov.Spec) (reconcile.Plan, error) {
	kept, err := reconcile.ReadState(a.dir)
	if err != nil {
		return reconcile.Plan{}, err
	}
	state, err := sriov.Observe(ctx, a.host())
	if err != nil {
		return reconcile.Plan{}, err
	}
	return sriov.Plan(specs, state, kept.Originals), nil
}

func (a *agent) loop(specs []sriov.Spec, host sriov.Host) *reconcile.Loop {
	return &reconcile.Loop{
		Dir:     a.dir,
		Writers: map[string]reconcile.Writer{sriov.WriterName: sriov.Writer{Host: host}},
		Verify:  func(ctx context.Context) (reconcile.Plan, error) { return a.replan(ctx, specs) },
		Confirm: func(context.Context, reconcile.Request) error { return nil },
		Now:     time.Now,
	}
}

// apply carries out what the specs want, and wants the result.
func (a *agent) apply(t *testing.T, want reconcile.Result, specs ...sriov.Spec) reconcile.Outcome {
	t.Helper()
	outcome, err := a.loop(specs, a.host()).Apply(t.Context(), reconcile.Request{Who: "test"}, a.plan(t, specs...))
	if err != nil || outcome.Result != want {
		t.Fatalf("got %q, %v, want %s\n%s\n%s", outcome.Result, err, want, outcome.Cause, strings.Join(outcome.Left, "\n"))
	}
	return outcome
}

// dump is all that this package changes of a PF.
func dump(t *testing.T, b bed) string {
	t.Helper()
	state := observe(t, b.host())
	pf, found := state.Find(b.pf())
	if !found {
		t.Fatalf("no PF %s", b.pf())
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d VFs, autoprobe %v\n", pf.NumVFs, pf.Autoprobe)
	for _, vf := range pf.VFs {
		fmt.Fprintf(&out, "%d: driver %q override %q %v mtu %d\n", vf.Index, vf.Driver, vf.Override, withoutMAC(vf.Attributes), vf.MTU)
	}
	return out.String()
}

// withoutMAC leaves out what a driver makes up anew each time.
func withoutMAC(a sriov.Attributes) sriov.Attributes {
	a.MAC = ""
	return a
}

func wantDump(t *testing.T, b bed, want string) {
	t.Helper()
	if diff := cmp.Diff(want, dump(t, b)); diff != "" {
		t.Errorf("the PF is not as it was (-before +now):\n%s", diff)
	}
}

// example is the policy of the documentation.
func example(b bed) sriov.Spec {
	return sriov.Spec{
		PF: b.pf(), Policy: "storage", NumVFs: 7,
		Pools: []sriov.Pool{
			{Name: "fast", VFs: []int{0, 1, 2, 3}, Driver: "vfio-pci", Attributes: sriov.Attributes{VLAN: new(0), QoS: new(0), Trust: new(true), SpoofCheck: new(false)}},
			{Name: "tenant", VFs: []int{4, 5}, Attributes: sriov.Attributes{VLAN: new(100), QoS: new(3), MaxTxRate: new(1000)}, MTU: 1400},
		},
	}
}

func vfOf(t *testing.T, b bed, index int) sriov.VFState {
	t.Helper()
	pf, _ := observe(t, b.host()).Find(b.pf())
	vf, there := pf.VF(index)
	if !there {
		t.Fatalf("there is no VF %d", index)
	}
	return vf
}

func makeAndRestore(t *testing.T, b bed) {
	a := newAgent(t, b)
	before := dump(t, b)
	a.apply(t, reconcile.Kept, example(b))
	var got []string
	pf, _ := observe(t, b.host()).Find(b.pf())
	for _, vf := range pf.VFs {
		got = append(got, fmt.Sprintf("%d %s %q %v mtu %d", vf.Index, vf.Driver, vf.Override, withoutMAC(vf.Attributes), vf.MTU))
	}
	const fast, tenant, spare = `vfio-pci "" vlan 0, maxTxRate 0, spoofCheck off, trust on, linkState auto mtu 0`,
		`igbvf "" vlan 100 qos 3, maxTxRate 1000, spoofCheck on, trust off, linkState auto mtu 1400`,
		`igbvf "" vlan 0, maxTxRate 0, spoofCheck on, trust off, linkState auto mtu 1500`
	want := []string{"0 " + fast, "1 " + fast, "2 " + fast, "3 " + fast, "4 " + tenant, "5 " + tenant, "6 " + spare}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !pf.Autoprobe {
		t.Error("new VFs of the PF get no driver any more")
	}
	a.apply(t, reconcile.Converged, example(b))
	a.apply(t, reconcile.Kept)
	wantDump(t, b, before)
	a.apply(t, reconcile.Converged)
}

// repartition gives VFs to other pools, and those of no pool back.
func repartition(t *testing.T, b bed) {
	a := newAgent(t, b)
	a.apply(t, reconcile.Kept, example(b))
	spec := example(b)
	spec.Pools[0].VFs = []int{0, 1}            // 2 and 3 are free
	spec.Pools[1].VFs = []int{5, 6}            // 4 is free
	spec.Pools[1].Attributes.VLAN = new(200)   // 5 changes
	spec.Pools[1].Attributes.Trust = new(true) //
	spec.Pools = append(spec.Pools, sriov.Pool{Name: "late", VFs: []int{4}, Driver: "vfio-pci"})
	plan := a.plan(t, spec)
	for _, step := range plan.Steps {
		if strings.HasSuffix(step.Kind, "/vfs") || step.Disruption != reconcile.None {
			t.Errorf("a pool change plans %s", step)
		}
	}
	a.apply(t, reconcile.Kept, spec)
	for index, want := range []string{
		`vfio-pci vlan 0, maxTxRate 0, spoofCheck off, trust on, linkState auto`,
		`vfio-pci vlan 0, maxTxRate 0, spoofCheck off, trust on, linkState auto`,
		`igbvf vlan 0, maxTxRate 0, spoofCheck on, trust off, linkState auto`,
		`igbvf vlan 0, maxTxRate 0, spoofCheck on, trust off, linkState auto`,
		`vfio-pci vlan 0, maxTxRate 1000, spoofCheck on, trust off, linkState auto`,
		`igbvf vlan 200 qos 3, maxTxRate 1000, spoofCheck on, trust on, linkState auto`,
		`igbvf vlan 200 qos 3, maxTxRate 1000, spoofCheck on, trust on, linkState auto`,
	} {
		vf := vfOf(t, b, index)
		if index == 4 {
			// Its new pool says nothing of a VLAN, and so it stays.
			want = strings.Replace(want, "vlan 0", "vlan 100 qos 3", 1)
		}
		if got := fmt.Sprintf("%s %v", vf.Driver, withoutMAC(vf.Attributes)); got != want {
			t.Errorf("VF %d: got %s, want %s", index, got, want)
		}
	}
	a.apply(t, reconcile.Converged, spec)
}

func grow(t *testing.T, b bed) {
	a := newAgent(t, b)
	small := example(b)
	small.NumVFs, small.Pools = 4, small.Pools[:1]
	a.apply(t, reconcile.Kept, small)
	large := example(b)
	plan := a.plan(t, large).Restrict(func(string) bool { return false })
	if len(plan.Refusals) != 1 || plan.Refusals[0].Guard != "disruption" || len(plan.Refusals[0].Evidence) != 5 {
		t.Fatalf("growth without leave: %v", plan.Refusals)
	}
	plan = a.plan(t, large).Restrict(func(string) bool { return true })
	if len(plan.Refusals) > 0 {
		t.Fatal(plan.Refusals)
	}
	i := slices.IndexFunc(plan.Steps, func(s reconcile.Step) bool { return s.Disruption == reconcile.VFRecreate })
	if i < 0 || len(plan.Steps[i].Hits) != 4 || !strings.Contains(plan.Steps[i].Hits[0], "VF 0 (0000:") || !strings.HasSuffix(plan.Steps[i].Hits[0], "on vfio-pci") {
		t.Fatalf("got %v", plan.Steps)
	}
	a.apply(t, reconcile.Kept, large)
	a.apply(t, reconcile.Converged, large)
}

// inUse wants that a plan is refused because of a VF, and that the writer
// refuses the same without a plan's help.
func inUse(t *testing.T, a *agent, index int, spec sriov.Spec, evidence string) {
	t.Helper()
	before := dump(t, a)
	plan := a.plan(t, spec).Restrict(func(string) bool { return true })
	mentioned := func(text string) bool {
		return strings.Contains(text, fmt.Sprintf("VF %d (", index)) && strings.Contains(text, evidence)
	}
	if len(plan.Refusals) == 0 || plan.Refusals[0].Guard != "in-use" || !mentioned(plan.Refusals[0].Error()) {
		t.Errorf("refusals: %v", plan.Refusals)
	}
	if _, err := a.loop([]sriov.Spec{spec}, a.host()).Apply(t.Context(), reconcile.Request{}, plan); err == nil {
		t.Error("a refused plan was tried")
	}
	// Somebody began to use it after the plan was made.
	plan.Refusals = nil
	outcome, err := a.loop([]sriov.Spec{spec}, a.host()).Apply(t.Context(), reconcile.Request{}, plan)
	if err != nil || outcome.Result != reconcile.Reverted || !mentioned(outcome.Cause) {
		t.Errorf("got %+v, %v", outcome, err)
	}
	wantDump(t, a, before)
}

func leaveTaken(t *testing.T, b bed) {
	a := newAgent(t, b)
	a.apply(t, reconcile.Kept, example(b))
	before := vfOf(t, b, 5)
	back := b.takeAway(t, 5)
	otherVLAN, vfio, more := example(b), example(b), example(b)
	otherVLAN.Pools[1].Attributes.VLAN = new(7)
	vfio.Pools[1].Driver, vfio.Pools[1].MTU = "vfio-pci", 0
	more.NumVFs, more.Pools = 0, nil
	for _, spec := range []sriov.Spec{otherVLAN, vfio, more} {
		inUse(t, a, 5, spec, "another network namespace")
	}
	a.apply(t, reconcile.Converged, example(b)) // what is so already needs no touch
	back()
	if diff := cmp.Diff(before.Attributes, vfOf(t, b, 5).Attributes); diff != "" {
		t.Errorf("it was touched:\n%s", diff)
	}
	a.apply(t, reconcile.Kept, otherVLAN)
}

func leaveHeld(t *testing.T, b bed) {
	a := newAgent(t, b)
	a.apply(t, reconcile.Kept, example(b))
	release := b.hold(t, 2)
	back, otherTrust, fewer := example(b), example(b), example(b)
	back.Pools[0].Driver = ""
	otherTrust.Pools[0].Attributes.Trust = new(false)
	fewer.NumVFs, fewer.Pools = 3, nil
	for _, spec := range []sriov.Spec{back, otherTrust, fewer} {
		inUse(t, a, 2, spec, "/dev/vfio/")
	}
	release()
	a.apply(t, reconcile.Kept, back)
}

func undoUnsupported(t *testing.T, b bed) {
	a := newAgent(t, b)
	a.apply(t, reconcile.Kept, example(b))
	before := dump(t, b)
	for errno, change := range map[unix.Errno]sriov.Attributes{
		unix.EOPNOTSUPP: {LinkState: "disable"},
		unix.EINVAL:     {MinTxRate: new(100), MaxTxRate: new(1000)},
	} {
		spec := example(b)
		spec.Pools[1].Attributes.VLAN = new(300) // is made, and undone
		spec.Pools = append(spec.Pools, sriov.Pool{Name: "last", VFs: []int{6}, Attributes: change})
		outcome := a.apply(t, reconcile.Reverted, spec)
		if !strings.Contains(outcome.Cause, "VF 6 of "+b.pf()) || !strings.Contains(outcome.Cause, errno.Error()) {
			t.Errorf("the cause does not say %v: %s", errno, outcome.Cause)
		}
		wantDump(t, b, before)
	}
	spec := example(b)
	spec.NumVFs = 8
	if plan := a.plan(t, spec); len(plan.Refusals) == 0 || !strings.Contains(plan.Refusals[0].Error(), "it can have 7 VFs, 8 are wanted") {
		t.Errorf("got %v", plan.Refusals)
	}
}

// errnos writes what the planner would refuse.
func errnos(t *testing.T, b bed) {
	host := b.host()
	name := devicesDir + b.pf() + "/sriov_numvfs"
	for _, test := range []struct {
		value string
		want  error
	}{{"8", unix.ERANGE}, {"4", nil}, {"4", nil}, {"7", unix.EBUSY}, {"0", nil}, {"7", nil}, {"0", nil}} {
		if err := host.Sysfs.Write(t.Context(), name, test.value); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.value, err, test.want)
		}
	}
}

// faulty fails at one of the writes.
type faulty struct {
	sriov.Links
	sysfs  sriov.Sysfs
	left   *int
	failed *bool
}

var errInjected = errors.New("injected")

func (f faulty) due() bool {
	*f.left--
	if *f.left == 0 {
		*f.failed = true
	}
	return *f.left == 0
}

func (f faulty) Write(ctx context.Context, name, value string) error {
	if f.due() {
		return errInjected
	}
	return f.sysfs.Write(ctx, name, value)
}

func (f faulty) SetVF(ctx context.Context, pf string, index int, change sriov.Attributes) error {
	if f.due() {
		return errInjected
	}
	return f.Links.SetVF(ctx, pf, index, change)
}

func (f faulty) SetLink(ctx context.Context, name string, mtu int, up *bool) error {
	if f.due() {
		return errInjected
	}
	return f.Links.SetLink(ctx, name, mtu, up)
}

// undoEveryFailure grows four VFs that are set up to seven that are otherwise,
// and fails at the first write, the second, and so on until none is left; where
// that takes long, at some of them.
func undoEveryFailure(t *testing.T, b bed) {
	a := newAgent(t, b)
	small := example(b)
	small.NumVFs = 4
	small.Pools = []sriov.Pool{
		{Name: "one", VFs: []int{0, 1}, Driver: "vfio-pci", Attributes: sriov.Attributes{Trust: new(true)}},
		{Name: "two", VFs: []int{2}, Attributes: sriov.Attributes{VLAN: new(5), QoS: new(1)}, MTU: 1300},
	}
	a.apply(t, reconcile.Kept, small)
	before := dump(t, b)
	large := example(b)
	plan := a.plan(t, large)
	stride := 1
	if b.slow() {
		stride = 9
	}
	for n := 1; ; n += stride {
		left, failed := n, false
		host := b.host()
		broken := faulty{host.Links, host.Sysfs, &left, &failed}
		host.Links, host.Sysfs = broken, broken
		outcome, err := a.loop([]sriov.Spec{large}, host).Apply(t.Context(), reconcile.Request{}, plan)
		if err != nil {
			t.Fatal(err)
		}
		if !failed {
			if outcome.Result != reconcile.Kept || n < 20 {
				t.Errorf("got %+v after %d writes", outcome, n)
			}
			return
		}
		if outcome.Result != reconcile.Reverted || !strings.Contains(outcome.Cause, "injected") {
			t.Fatalf("write %d: got %q: %s, %v", n, outcome.Result, outcome.Cause, outcome.Left)
		}
		wantDump(t, b, before)
		if t.Failed() {
			t.Fatalf("after a failure of write %d", n)
		}
	}
}

// walk goes through specs in an order of its own, and back to the start.
func walk(t *testing.T, b bed) {
	a := newAgent(t, b)
	before := dump(t, b)
	empty := sriov.Spec{PF: b.pf(), NumVFs: 0}
	bare := sriov.Spec{PF: b.pf(), NumVFs: 3}
	split := example(b)
	split.Pools[0].VFs, split.Pools[1].VFs = []int{6, 0}, []int{1}
	for i, specs := range [][]sriov.Spec{{bare}, {example(b)}, {split}, {}, {split}, {example(b)}, {empty}, {bare}, {}} {
		for _, want := range []reconcile.Result{reconcile.Kept, reconcile.Converged} {
			if i == 7 && want == reconcile.Kept || i != 7 {
				a.apply(t, want, specs...)
			}
		}
	}
	wantDump(t, b, before)
	if kept, err := reconcile.ReadState(a.dir); err != nil || len(kept.Originals) > 0 {
		t.Errorf("left: %v, %v", kept.Originals, err)
	}
}

// restoreForeign finds VFs that somebody has made and set up.
func restoreForeign(t *testing.T, b bed) {
	host := b.host()
	pf, _ := observe(t, host).Find(b.pf())
	set := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	set(host.Sysfs.Write(t.Context(), devicesDir+b.pf()+"/sriov_numvfs", "3"))
	t.Cleanup(func() { _ = host.Sysfs.Write(context.Background(), devicesDir+b.pf()+"/sriov_numvfs", "0") })
	await(t, "the card has started anew", func() bool {
		now, _ := observe(t, host).Find(b.pf())
		return !now.LinkDown
	})
	set(host.Links.SetVF(t.Context(), pf.Netdevs[0], 0, sriov.Attributes{VLAN: new(42), QoS: new(2), Trust: new(true)}))
	set(host.Links.SetVF(t.Context(), pf.Netdevs[0], 1, sriov.Attributes{SpoofCheck: new(false), MaxTxRate: new(500)}))
	second := vfOf(t, b, 1).Address
	set(host.Sysfs.Write(t.Context(), devicesDir+second+"/driver/unbind", second))
	before := dump(t, b)

	a := newAgent(t, b)
	same := example(b)
	same.NumVFs = 3
	same.Pools = []sriov.Pool{{Name: "all", VFs: []int{0, 1, 2}, Driver: "vfio-pci", Attributes: sriov.Attributes{VLAN: new(9), QoS: new(0), SpoofCheck: new(true)}}}
	a.apply(t, reconcile.Kept, same)
	a.apply(t, reconcile.Kept)
	wantDump(t, b, before)

	a.apply(t, reconcile.Kept, same)
	a.apply(t, reconcile.Kept, example(b)) // destroys them
	a.apply(t, reconcile.Kept)
	a.settle(t)
	wantDump(t, b, before)
}

// settle plans and applies until nothing is left: what was destroyed while it
// was a policy's comes back as the policy had it, and then as before.
func (a *agent) settle(t *testing.T) {
	t.Helper()
	for range 3 {
		plan := a.plan(t)
		if plan.Converged() {
			return
		}
		a.apply(t, reconcile.Kept)
	}
	t.Error("it does not come to rest")
}

func drift(t *testing.T, b bed) {
	a := newAgent(t, b)
	a.apply(t, reconcile.Kept, example(b))
	host := b.host()
	pf, _ := observe(t, host).Find(b.pf())
	if err := host.Links.SetVF(t.Context(), pf.Netdevs[0], 4, sriov.Attributes{VLAN: new(101), QoS: new(0)}); err != nil {
		t.Fatal(err)
	}
	plan := a.plan(t, example(b))
	want := fmt.Sprintf("set VF 4 of %s: vlan 100 qos 3", pf.Name())
	if len(plan.Steps) != 1 || plan.Steps[0].String() != want {
		t.Errorf("got %v, want %s", plan.Steps, want)
	}
	a.apply(t, reconcile.Kept, example(b))
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !condition() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
