package hostnet_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/links"
)

// bench is a host under test: a kernel, or what behaves as one.
type bench struct {
	t      testing.TB
	host   *hostnet.Host
	dump   func() string
	knows  map[string]bool // kinds that not every kernel has
	dir    string
	broken func(reconcile.Step) error
	writes int
}

// onEach runs a test of the suite on both.
func onEach(t *testing.T, test func(t *testing.T, open func(testing.TB) *bench)) {
	t.Run("fake", func(t *testing.T) { test(t, fakeBench) })
	t.Run("kernel", func(t *testing.T) { test(t, kernelBench) })
}

func fakeBench(t testing.TB) *bench {
	t.Helper()
	kernel := new(links.Kernel)
	kernel.AddCard(hostnet.Link{Name: "nic0"})
	kernel.AddCard(hostnet.Link{Name: "nic1"})
	all := map[string]bool{"filtering": true, "vlan": true, "bond": true}
	return &bench{t: t, host: &hostnet.Host{Kernel: kernel, Root: openRoot(t)}, dump: kernel.String, knows: all, dir: t.TempDir()}
}

func openRoot(t testing.TB) *hostfs.Root {
	t.Helper()
	root, err := hostfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func kernelBench(t testing.TB) *bench {
	t.Helper()
	space := hosttest.NewSpace(t)
	kernel, err := hostnet.OpenNetlink(space.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.Close() })
	b := &bench{t: t, host: &hostnet.Host{Kernel: kernel, Root: openRoot(t)}, dump: space.Dump, dir: t.TempDir()}
	// A card is a veth that has been up before, as a card of a booted host has.
	for _, name := range []string{"nic0", "nic1"} {
		space.IP("link add " + name + " type veth peer name " + name + "p")
		space.IP("link set " + name + "p up")
		space.IP("link set " + name + " up")
		space.IP("link set " + name + " down")
	}
	has := func(kind string) bool {
		if _, err := space.Try("ip link add probe0 " + kind); err != nil {
			return false
		}
		space.IP("link del probe0")
		return true
	}
	b.knows = map[string]bool{"filtering": has("type bridge vlan_filtering 1"), "vlan": has("link nic0 type vlan id 1"), "bond": has("type bond")}
	return b
}

// plan plans policies on the host as it is.
func (b *bench) plan(text string) (reconcile.Plan, error) {
	state, err := b.host.Observe(b.t.Context())
	if err != nil {
		return reconcile.Plan{}, err
	}
	ours, err := reconcile.ReadState(b.dir)
	if err != nil {
		return reconcile.Plan{}, err
	}
	if text == "" {
		return hostnet.Plan(hostnet.Spec{}, state, ours), nil
	}
	policies, err := config.ParsePolicies([]byte(text))
	if err != nil {
		return reconcile.Plan{}, err
	}
	spec, refusals := hostnet.Resolve(policies, &state)
	plan := hostnet.Plan(spec, state, ours)
	plan.Refusals = append(plan.Refusals, refusals...)
	return plan.Restrict(hostnet.Disruptive(policies)), nil
}

// apply carries policies out.
func (b *bench) apply(text string) (reconcile.Outcome, error) {
	plan, err := b.plan(text)
	if err != nil {
		return reconcile.Outcome{}, err
	}
	ours, err := reconcile.ReadState(b.dir)
	if err != nil {
		return reconcile.Outcome{}, err
	}
	loop := &reconcile.Loop{
		Dir: b.dir,
		Writers: map[string]reconcile.Writer{
			hostnet.WriterName: &faulty{Writer: &hostnet.Writer{Host: b.host, Originals: ours.Originals}, broken: b.broken},
		},
		Verify:  func(ctxT) (reconcile.Plan, error) { return b.plan(text) },
		Confirm: func(ctxT, reconcile.Request) error { return nil },
		Audit:   func(reconcile.Write) { b.writes++ },
		Now:     time.Now, Boot: "test",
	}
	return loop.Apply(b.t.Context(), reconcile.Request{Who: "test"}, plan)
}

// must brings the host to a state, and looks that nothing is left to do.
func (b *bench) must(text string) {
	b.t.Helper()
	outcome, err := b.apply(text)
	if err != nil || outcome.Result != reconcile.Kept && outcome.Result != reconcile.Converged {
		b.t.Fatalf("apply: %+v, %v\nof %s\nat\n%s", outcome, err, text, b.dump())
	}
	writes := b.writes
	if outcome, err := b.apply(text); err != nil || outcome.Result != reconcile.Converged || b.writes != writes {
		b.t.Fatalf("once more: %+v, %v, %d writes", outcome, err, b.writes-writes)
	}
}

func policy(interfaces string) string {
	return "apiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: test}\nspec:\n  disruption: Allow\n  interfaces:\n" + interfaces
}

// stages are valid states of two cards. Those that need VLANs, VLAN filtering
// and bonds are among them where the kernel has these.
func stages(b *bench) []string {
	all := []string{
		"",
		policy("  - {name: storage, match: {name: nic0}}\n"),
		policy("  - {name: storage, match: {name: nic0}, mtu: 9000}\n"),
		policy("  - {name: storage, match: {name: nic0}, mtu: 9000, hostShim: {name: shim0, addresses: [10.7.0.2/32], routes: [10.7.0.0/24]}}\n"),
		policy("  - {name: storage, match: {name: nic0}, mtu: 4000, hostShim: {name: shim0, addresses: [10.7.0.3/32], routes: [10.7.0.0/24, 10.8.0.0/24]}}\n"),
		policy("  - {name: storage, match: {name: nic0}, hostShim: {name: shim0, addresses: [10.7.0.2/32]}}\n"),
		policy("  - {name: storage, match: {name: nic1}, hostShim: {name: shim0, addresses: [10.7.0.2/32]}}\n"),
		policy("  - {name: storage, match: {name: nic0}, bridge: {name: br1}}\n"),
		policy("  - {name: storage, match: {name: nic0}, mtu: 3000, bridge: {name: br1}}\n"),
		policy("  - {name: a, match: {name: nic0}, bridge: {name: br1}}\n  - {name: b, match: {name: nic1}, mtu: 2000, bridge: {name: br2}}\n"),
		policy("  - {name: b, match: {name: nic0}, bridge: {name: br2}}\n  - {name: a, match: {name: nic1}, hostShim: {name: shim0, routes: [10.9.0.0/16]}}\n"),
	}
	if b.knows["filtering"] {
		all = append(
			all,
			policy("  - {name: storage, match: {name: nic0}, mtu: 3000, bridge: {name: br1, vlanFiltering: true, vlans: [10-20, \"7\"]}}\n"),
			policy("  - {name: storage, match: {name: nic0}, bridge: {name: br1, vlanFiltering: true, vlans: [15-25]}}\n"),
		)
	}
	if b.knows["vlan"] {
		all = append(
			all,
			policy("  - {name: storage, match: {name: nic0}, mtu: 9000, vlans: [{id: 77, name: v77, mtu: 1500}, {id: 78, name: v78}], hostShim: {name: shim0, parent: v77, addresses: [10.7.0.2/32], routes: [10.7.0.0/24]}}\n"),
			policy("  - {name: storage, match: {name: nic0}, mtu: 4000, vlans: [{id: 79, name: v77}], hostShim: {name: shim0, parent: v77, addresses: [10.7.0.2/32]}}\n"),
			policy("  - {name: storage, match: {name: nic0}, vlans: [{id: 77, name: v77, protocol: 802.1ad}], bridge: {name: br1}}\n"),
		)
	}
	if b.knows["bond"] {
		all = append(
			all,
			policy("  - {name: a, match: {name: nic0}}\n  - {name: b, match: {name: nic1}}\n  - {name: t, bond: {name: bond1, ports: [a, b]}, mtu: 9000, vlans: [{id: 7, name: v7}], hostShim: {name: shim0, parent: v7, addresses: [10.7.0.2/32]}}\n"),
			policy("  - {name: a, match: {name: nic0}}\n  - {name: b, match: {name: nic1}}\n  - {name: t, bond: {name: bond1, ports: [a, b], mode: 802.3ad, lacpRate: fast, transmitHashPolicy: layer3+4}, bridge: {name: br1, vlanFiltering: true, vlans: [\"7\"]}}\n"),
			policy("  - {name: b, match: {name: nic1}}\n  - {name: t, bond: {name: bond1, ports: [b], monitorInterval: 200}}\n  - {name: s, match: {name: nic0}, mtu: 2000}\n"),
		)
	}
	return all
}

func TestStagesAndBack(t *testing.T) {
	onEach(t, func(t *testing.T, open func(testing.TB) *bench) {
		for i, stage := range stages(open(t))[1:] {
			t.Run(strconv.Itoa(i+1), func(t *testing.T) {
				b := open(t)
				before := b.dump()
				b.must(stage)
				if b.dump() == before {
					t.Error("nothing has changed")
				}
				b.must("")
				b.nothingLeft(before)
			})
		}
	})
}

// nothingLeft fails unless the host is as it was, byte by byte, and nothing of
// it is ours. A link's carrier is what the kernel finds out some time later.
func (b *bench) nothingLeft(before string) {
	b.t.Helper()
	after := b.dump()
	for deadline := time.Now().Add(10 * time.Second); after != before && time.Now().Before(deadline); after = b.dump() {
		time.Sleep(20 * time.Millisecond)
	}
	if after != before {
		b.t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if ours, err := reconcile.ReadState(b.dir); err != nil || len(ours.Originals) > 0 {
		b.t.Errorf("still ours: %+v, %v", ours, err)
	}
}

// TestRandomWalk goes from state to state at random, and back to the first.
func TestRandomWalk(t *testing.T) {
	onEach(t, func(t *testing.T, open func(testing.TB) *bench) {
		for seed := range uint64(2) {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				b := open(t)
				before := b.dump()
				random := rand.New(rand.NewPCG(seed, 1))
				all := stages(b)
				for range 10 {
					b.must(all[random.IntN(len(all))])
				}
				b.must("")
				b.nothingLeft(before)
			})
		}
	})
}

// TestFailureAtEveryStepRestoresTheStateBefore fails each step of random
// moves after it was made.
func TestFailureAtEveryStepRestoresTheStateBefore(t *testing.T) {
	onEach(t, func(t *testing.T, open func(testing.TB) *bench) {
		b := open(t)
		random := rand.New(rand.NewPCG(7, 7))
		all := stages(b)
		for range 4 {
			next := all[random.IntN(len(all))]
			b.failEachStep(next)
			b.must(next)
		}
	})
}

func (b *bench) failEachStep(next string) {
	b.t.Helper()
	plan, err := b.plan(next)
	if err != nil {
		b.t.Fatal(err)
	}
	before := b.dump()
	for i := range plan.Steps {
		count := 0
		b.broken = func(reconcile.Step) error {
			if count++; count == i+1 {
				return fmt.Errorf("step %d fails", i+1)
			}
			return nil
		}
		outcome, err := b.apply(next)
		if err != nil || outcome.Result != reconcile.Reverted {
			b.t.Fatalf("%+v, %v", outcome, err)
		}
		if after := b.dump(); stripIndices(after) != stripIndices(before) {
			b.t.Fatalf("step %d of %v\nbefore\n%s\nafter\n%s", i+1, plan.Steps, before, after)
		}
	}
	b.broken = nil
}

// carrier is what the kernel finds out by itself, some time later.
var carrier = regexp.MustCompile(`(,LOWER_UP|NO-CARRIER,|,M-DOWN| state [A-Z]+)`)

// stripIndices removes the numbers of links, and the addresses that the
// kernel draws: what is made anew has others.
func stripIndices(dump string) string {
	var out []string
	for line := range strings.Lines(dump) {
		if number, rest, found := strings.Cut(line, ": "); found && strings.Trim(number, "0123456789") == "" {
			line = rest
		}
		if before, _, found := strings.Cut(line, "link/ether"); found {
			line = before
		}
		line = carrier.ReplaceAllString(line, "")
		for _, random := range []string{"bridge_id", "designated_bridge", "gc_timer", "hello_timer", "designated_root", "root_id", "port_id"} {
			if at := strings.Index(line, random); at >= 0 {
				line = line[:at]
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}
