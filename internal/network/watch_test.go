package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/sriov"
	"github.com/virtnode/nodeagent/test/links"
)

// watched is a host that is none, and the watch over it.
type watched struct {
	*Watch
	t        *testing.T
	kernel   *links.Kernel
	boot     string
	policies []v1alpha1.HostNetwork
}

type silent struct{}

func (silent) Reach(context.Context, string, netip.Addr) error { return nil }

// jealous is a gateway that answers as long as a link has an MTU.
type jealous struct {
	*watched
	mtu int
}

func (j jealous) Reach(context.Context, string, netip.Addr) error {
	if have := j.watched.mtu(); have != j.mtu {
		return fmt.Errorf("MTU is %d", have)
	}
	return nil
}

func newWatched(t *testing.T, text string) *watched {
	t.Helper()
	kernel := new(links.Kernel)
	kernel.AddCard(hostnet.Link{Name: "nic0", PCI: &hostnet.PCI{Address: "0000:01:00.0", Driver: "igb"}})
	root := emptyRoot(t)
	host := &hostnet.Host{Kernel: kernel, Root: root}
	w := &watched{t: t, kernel: kernel, boot: filepath.Join(root.Dir(), "proc/sys/kernel/random/boot_id"), policies: policies(t, text)}
	w.reboot("one")
	w.Watch = &Watch{
		Network: &Network{
			Dir: t.TempDir(), Links: host, VFs: sriov.Host{Root: root, Sysfs: root}, Neighbours: silent{}, Now: time.Now,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		},
		Policies: func() ([]v1alpha1.HostNetwork, error) { return w.policies, nil },
	}
	return w
}

func (w *watched) reboot(id string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.boot), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.boot, []byte(id+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// restart forgets what an agent that is started again does not know.
func (w *watched) restart() { w.wanted = ""; w.forget() }

func (w *watched) mtu() int {
	w.t.Helper()
	state, err := w.kernel.Dump(w.t.Context(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	link, _ := state.Link("nic0")
	return link.MTU
}

func (w *watched) drift(mtu int) {
	w.t.Helper()
	if err := w.kernel.Do(w.t.Context(), hostnet.Op{Do: hostnet.SetMTU, Link: "nic0", Number: mtu}); err != nil {
		w.t.Fatal(err)
	}
}

const jumbo = "  - {name: storage, match: {name: nic0}, mtu: 9000}\n"

func TestDriftIsReportedAndRepairedOnDemand(t *testing.T) {
	w := newWatched(t, jumbo)
	w.round(t.Context())
	if s := w.Status(); w.mtu() != 9000 || s.Applies != 1 || len(s.Drift) != 0 || s.Last.Result != reconcile.Kept || s.Checked.IsZero() {
		t.Fatalf("at the start: MTU %d, %+v", w.mtu(), s)
	}
	w.drift(4000)
	w.round(t.Context())
	if s := w.Status(); w.mtu() != 4000 || s.Applies != 1 || len(s.Drift) != 1 || s.Drift[0] != "set MTU of nic0 from 4000 to 9000" {
		t.Fatalf("drifted: MTU %d, %+v", w.mtu(), s)
	}
	w.Repair = true
	w.round(t.Context())
	if s := w.Status(); w.mtu() != 9000 || s.Applies != 2 || len(s.Drift) != 0 {
		t.Fatalf("repaired: MTU %d, %+v", w.mtu(), s)
	}
}

func TestNewPoliciesAndNewBootsAreAppliedOnce(t *testing.T) {
	w := newWatched(t, jumbo)
	w.round(t.Context())
	writes := len(w.kernel.Ops)
	// The agent is started again: the same policies are only looked at.
	w.drift(4000)
	writes++
	w.restart()
	w.round(t.Context())
	if len(w.kernel.Ops) != writes {
		t.Errorf("after a restart: %v", w.kernel.Ops[writes:])
	}
	w.reboot("two")
	w.round(t.Context())
	if w.mtu() != 9000 {
		t.Errorf("after a reboot: MTU %d", w.mtu())
	}
	w.policies = policies(t, "  - {name: storage, match: {name: nic0}, mtu: 2000}\n")
	w.round(t.Context())
	if w.mtu() != 2000 {
		t.Errorf("a new policy: MTU %d", w.mtu())
	}
	w.policies = nil
	w.round(t.Context())
	if w.mtu() != 1500 {
		t.Errorf("no policy: MTU %d", w.mtu())
	}
	writes = len(w.kernel.Ops)
	w.round(t.Context())
	if len(w.kernel.Ops) != writes {
		t.Errorf("converged, and still: %v", w.kernel.Ops[writes:])
	}
}

func TestRefusedPolicyIsTriedOnce(t *testing.T) {
	w := newWatched(t, "  - {name: storage, match: {name: nic0}, mtu: 9000}\n  - {name: b, match: {name: nic9}}\n")
	w.round(t.Context())
	w.round(t.Context())
	if s := w.Status(); w.mtu() != 1500 || s.Applies+s.Rollbacks != 0 || len(s.Refusals) != 1 || s.Refusals[0].Guard != "match" {
		t.Errorf("MTU %d, %+v", w.mtu(), s)
	}
}

// TestWhatBecameOfAnAttemptIsFound looks at the findings of attempts that fail.
func TestWhatBecameOfAnAttemptIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		mtu       int // with which the gateway answers
		reason    kvmcheck.Reason
		says      string
		rollbacks int
	}{
		"the node is cut off":        {1500, NetworkReverted, "was undone: the node cannot be reached: gateway 10.0.0.1 on nic1 does not answer", 1},
		"nobody answered beforehand": {3000, NetworkRefused, "guard probe: connectivity: ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatched(t, jumbo)
			w.kernel.AddCard(hostnet.Link{Name: "nic1", Up: true})
			w.kernel.AddRoute(hostnet.Route{Destination: "0.0.0.0/0", Link: "nic1", Gateway: "10.0.0.1"})
			w.Network.Neighbours = jealous{w, test.mtu}
			w.round(t.Context())
			w.round(t.Context())
			s := w.Status()
			findings := s.Findings()
			if w.mtu() != 1500 || s.Rollbacks != test.rollbacks || len(findings) != 1 || findings[0].Reason != test.reason || !strings.Contains(findings[0].Message, test.says) {
				t.Errorf("MTU %d, %+v\n%+v", w.mtu(), findings, s)
			}
		})
	}
}

func TestNodeSelector(t *testing.T) {
	w := newWatched(t, jumbo)
	w.policies[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}
	w.round(t.Context())
	if w.mtu() != 1500 {
		t.Error("a policy for other nodes was applied")
	}
	w.Network.Labels = map[string]string{"rack": "a"}
	w.round(t.Context())
	if w.mtu() != 9000 {
		t.Error("a policy for this node was not applied")
	}
}

func TestWhatBecomesPossibleIsTriedAgain(t *testing.T) {
	w := newWatched(t, "  - {name: storage, match: {name: nic0}, mtu: 9000}\n  - {name: b, match: {name: nic9}}\n")
	if look := w.round(t.Context()); look.Held || look.Cause == nil || w.mtu() != 1500 {
		t.Fatalf("without the card: MTU %d, %+v", w.mtu(), look)
	}
	w.kernel.AddCard(hostnet.Link{Name: "nic9"})
	w.round(t.Context()) // sees it
	if look := w.round(t.Context()); !look.Held || look.Cause != nil || w.mtu() != 9000 {
		t.Errorf("with the card: MTU %d, %+v", w.mtu(), look)
	}
}

// What the cluster decides: a disruptive plan waits for its turn, and has it
// for itself alone.
func TestDisruptionNeedsAPermit(t *testing.T) {
	w := newWatched(t, jumbo)
	// Another MTU interrupts the traffic of a real card that is up.
	device := filepath.Join(w.Network.Links.Root.Dir(), "sys/bus/pci/devices/0000:01:00.0")
	for file, text := range map[string]string{"vendor": "0x8086\n", "device": "0x10c9\n"} {
		if err := errors.Join(os.MkdirAll(device, 0o755), os.WriteFile(filepath.Join(device, file), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetUp, Link: "nic0"}); err != nil {
		t.Fatal(err)
	}
	permit := ""
	w.Permit = func(_ *v1alpha1.HostNetwork, plan string, restart bool) bool { return restart || plan == permit }
	look := w.round(t.Context())
	if w.mtu() != 1500 || look.Held || len(look.View.Plan.Refusals) != 1 || look.View.Plan.Refusals[0].Guard != "disruption" {
		t.Fatalf("without: MTU %d, %+v", w.mtu(), look.View.Plan)
	}
	permit = "another"
	if w.round(t.Context()); w.mtu() != 1500 {
		t.Fatal("another plan's permit was used")
	}
	permit = look.View.Plan.Hash()
	if look = w.round(t.Context()); w.mtu() != 9000 || !look.Held || len(look.View.Plan.Steps) != 0 {
		t.Fatalf("with: MTU %d, %+v", w.mtu(), look)
	}
	permit = ""
	w.drift(1500)
	if look = w.round(t.Context()); w.mtu() != 1500 || !look.Held {
		t.Errorf("drifted: MTU %d, %+v", w.mtu(), look)
	}
	// What held before a reboot may come back without another permit.
	w.reboot("two")
	w.restart()
	if look = w.round(t.Context()); w.mtu() != 9000 || !look.Held {
		t.Errorf("after a reboot: MTU %d, %+v", w.mtu(), look)
	}
}

func TestUnknownPoliciesChangeNothing(t *testing.T) {
	w := newWatched(t, jumbo)
	known := w.Policies
	w.Policies = func() ([]v1alpha1.HostNetwork, error) { return nil, ErrUnknown }
	if look := w.round(t.Context()); !errors.Is(look.Err, ErrUnknown) || w.mtu() != 1500 {
		t.Fatalf("at the first start: MTU %d, %+v", w.mtu(), look)
	}
	w.Policies = known
	w.round(t.Context())
	w.Policies = func() ([]v1alpha1.HostNetwork, error) { return nil, ErrUnknown }
	w.restart()
	if look := w.round(t.Context()); !look.Held || w.mtu() != 9000 {
		t.Errorf("after a restart: MTU %d, %+v", w.mtu(), look)
	}
	w.drift(1500)
	w.reboot("two")
	if look := w.round(t.Context()); !look.Held || w.mtu() != 9000 {
		t.Errorf("after a reboot: MTU %d, %+v", w.mtu(), look)
	}
}
