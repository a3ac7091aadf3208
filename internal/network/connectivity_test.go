package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// cutEnv makes the test binary, in a network namespace, cut the uplink as an
// agent without its guard would, and be killed: "STATE-DIR MOMENT".
const cutEnv = "NODEAGENT_TEST_CUT"

func TestMain(m *testing.M) {
	if args := strings.Fields(os.Getenv(cutEnv)); len(args) == 2 {
		fmt.Println(cutAndDie(args[0], args[1]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// newNetwork returns the network of a namespace, with nothing else of a host.
func newNetwork(kernel *hostnet.Netlink, root *hostfs.Root, dir string) *Network {
	links := &hostnet.Host{Kernel: kernel, Root: root}
	return &Network{
		Dir: dir, Links: links, VFs: sriov.Host{Root: root, Sysfs: root, Links: hostnet.VFLinks{Host: links, Netlink: kernel}},
		Neighbours: kernel, Now: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// node is a host that is reached through uplink0, and its gateway.
type node struct {
	*Network
	t      *testing.T
	space  *hosttest.Space
	kernel *hostnet.Netlink
}

func newNode(t *testing.T) *node {
	t.Helper()
	space, other := hosttest.NewSpace(t), hosttest.NewSpace(t)
	other.IP("link add gw0 type veth peer name uplink0")
	other.IP("addr add 10.99.0.1/24 dev gw0")
	other.IP("link set gw0 up")
	other.IP("link set uplink0 netns " + space.Path)
	space.IP("addr add 10.99.0.2/24 dev uplink0")
	space.IP("link set uplink0 up")
	space.IP("route add default via 10.99.0.1")
	kernel, err := hostnet.OpenNetlink(space.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kernel.Close() })
	return &node{Network: newNetwork(kernel, emptyRoot(t), t.TempDir()), t: t, space: space, kernel: kernel}
}

// emptyRoot is a host without PCI devices.
func emptyRoot(t *testing.T) *hostfs.Root {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"proc/x", "sys/x"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func (n *node) reachable(within time.Duration) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), within)
	defer cancel()
	return n.kernel.Reach(ctx, "uplink0", netip.MustParseAddr("10.99.0.1"))
}

func policies(t *testing.T, interfaces string) []v1alpha1.HostNetwork {
	t.Helper()
	all, err := config.ParsePolicies([]byte("apiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: test}\nspec:\n  disruption: Allow\n  interfaces:\n" + interfaces))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatWouldCutTheNodeOffIsRefused(t *testing.T) {
	n := newNode(t)
	n.space.IP("link add nic0 type veth peer name nic0p")
	before := n.space.Dump()
	for name, interfaces := range map[string]string{
		"its MTU":                  "  - {name: a, match: {name: uplink0}, mtu: 1400}\n",
		"a bridge":                 "  - {name: a, match: {name: uplink0}, bridge: {name: br1}}\n",
		"a bond":                   "  - {name: a, match: {name: uplink0}}\n  - {name: b, bond: {name: bond1, ports: [a]}}\n",
		"a route to the gateway":   "  - {name: a, match: {name: nic0}, hostShim: {name: shim0, routes: [10.99.0.0/25]}}\n",
		"a network of the gateway": "  - {name: a, match: {name: nic0}, hostShim: {name: shim0, addresses: [10.99.0.9/24]}}\n",
		"its own address":          "  - {name: a, match: {name: nic0}, hostShim: {name: shim0, addresses: [10.99.0.2/32]}}\n",
	} {
		view, err := n.Plan(t.Context(), policies(t, interfaces))
		if err != nil || len(view.Plan.Refusals) == 0 || view.Plan.Refusals[0].Guard != "uplink" || len(view.Plan.Refusals[0].Evidence) == 0 {
			t.Errorf("%s: %+v, %v", name, view.Plan, err)
		}
		if _, err := n.Apply(t.Context(), Ask{Who: "test"}, policies(t, interfaces)); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
	if after := n.space.Dump(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	// What lies on the uplink, and leaves it as it is, may be made.
	outcome, err := n.Apply(t.Context(), Ask{Who: "test"}, policies(t, "  - {name: a, match: {name: uplink0}, hostShim: {name: shim0, addresses: [10.99.0.77/32], routes: [10.99.0.128/25]}}\n"))
	if err != nil || outcome.Result != reconcile.Kept || n.reachable(5*time.Second) != nil {
		t.Errorf("a shim on the uplink: %+v, %v", outcome, err)
	}
}

// unguarded makes steps without asking a guard.
type unguarded struct {
	reconcile.Writer
	after func()
}

func (u unguarded) Guard(context.Context, reconcile.Step) error { return nil }

func (u unguarded) Apply(ctx context.Context, s reconcile.Step) (json.RawMessage, error) {
	now, err := u.Writer.Apply(ctx, s)
	if u.after != nil {
		u.after()
	}
	return now, err
}

// cut returns what an agent without a guard does to set the uplink down.
func (n *Network) cut(ctx context.Context, after func()) (*reconcile.Loop, reconcile.Request, reconcile.Plan, error) {
	state, err := n.Links.Observe(ctx)
	if err != nil {
		return nil, reconcile.Request{}, reconcile.Plan{}, err
	}
	step, _ := state.Down("uplink0")
	loop, err := n.loop()
	if err != nil {
		return nil, reconcile.Request{}, reconcile.Plan{}, err
	}
	loop.Writers["link"] = unguarded{loop.Writers["link"], after}
	loop.Verify = func(context.Context) (reconcile.Plan, error) { return reconcile.Plan{}, nil }
	targets, err := n.resolve(v1alpha1.ProbeGateway, &state)
	return loop, reconcile.Request{Who: "test", Probes: reconcile.Value(probes{Timeout: "1s", Targets: targets})}, reconcile.Plan{Steps: []reconcile.Step{step}}, err
}

func TestLostConnectivityComesBackByItself(t *testing.T) {
	n := newNode(t)
	if err := n.reachable(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	before := n.space.IP("-4 route")
	down := false
	loop, request, plan, err := n.cut(t.Context(), func() { down = n.reachable(200*time.Millisecond) != nil })
	if err != nil {
		t.Fatal(err)
	}
	outcome, err := loop.Apply(t.Context(), request, plan)
	if err != nil || outcome.Result != reconcile.Reverted || !outcome.CutOff || !down {
		t.Errorf("%+v, %v; cut off: %v", outcome, err, down)
	}
	if err := n.reachable(5 * time.Second); err != nil {
		t.Error(err)
	}
	if after := n.space.IP("-4 route"); after != before {
		t.Errorf("routes before\n%s\nafter\n%s", before, after)
	}
	if _, err := loop.Apply(t.Context(), request, plan); err == nil || !strings.Contains(err.Error(), "guard connectivity") {
		t.Errorf("the same again: %v", err)
	}
}

func cutAndDie(dir, moment string) error {
	kernel, err := hostnet.OpenNetlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	root, err := hostfs.Open(filepath.Join(dir, "root"))
	if err != nil {
		return err
	}
	die := func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	after := die
	if moment == "confirm" {
		after = nil
	}
	n := newNetwork(kernel, root, dir)
	loop, request, plan, err := n.cut(context.Background(), after)
	if err != nil {
		return err
	}
	loop.Confirm = func(context.Context, reconcile.Request) error { die(); return nil }
	_, err = loop.Apply(context.Background(), request, plan)
	return err
}

func TestKilledRightAfterTheCut(t *testing.T) {
	for _, moment := range []string{"write", "confirm"} {
		t.Run(moment, func(t *testing.T) {
			n := newNode(t)
			before := n.space.IP("-4 route")
			if err := os.MkdirAll(filepath.Join(n.Dir, "root/proc/x"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), cutEnv+"="+n.Dir+" "+moment)
			var out []byte
			var err error
			n.space.Inside(func() { out, err = cmd.CombinedOutput() })
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("%v\n%s", err, out)
			}
			if err := n.reachable(300 * time.Millisecond); err == nil {
				t.Fatal("the uplink was not cut")
			}
			outcome, err := n.Recover(t.Context())
			if err != nil || outcome.Result != reconcile.Reverted {
				t.Errorf("%+v, %v", outcome, err)
			}
			if err := n.reachable(5 * time.Second); err != nil {
				t.Error(err)
			}
			if after := n.space.IP("-4 route"); after != before {
				t.Errorf("routes before\n%s\nafter\n%s", before, after)
			}
		})
	}
}
