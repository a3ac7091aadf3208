package hostnet_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/test/links"
)

// datacentre is a host with an uplink bond, two free cards and a card of VFs.
func datacentre(t testing.TB) (*bench, *links.Kernel) {
	t.Helper()
	kernel := new(links.Kernel)
	kernel.AddCard(hostnet.Link{Name: "lo", Loopback: true, Up: true, MTU: 65536})
	for i, name := range []string{"eth0", "eth1", "eth2", "eth3"} {
		kernel.AddCard(hostnet.Link{
			Name: name, Up: i < 2, PermanentMAC: fmt.Sprintf("52:54:00:00:00:0%d", i),
			PCI: &hostnet.PCI{Address: fmt.Sprintf("0000:0%d:00.0", i), Driver: "igb", Vendor: "8086", Device: "10c9"},
		})
	}
	b := &bench{t: t, host: &hostnet.Host{Kernel: &pci{Kernel: kernel}, Root: openRoot(t)}, dump: kernel.String, dir: t.TempDir()}
	for _, op := range []hostnet.Op{
		{Do: hostnet.AddLink, Link: "bond0", Device: &hostnet.Device{Kind: "bond", Bond: &hostnet.Bonding{Mode: "active-backup"}}},
		{Do: hostnet.SetDown, Link: "eth0"},
		{Do: hostnet.SetMaster, Link: "eth0", Text: "bond0"},
		{Do: hostnet.SetUp, Link: "bond0"},
		{Do: hostnet.AddLink, Link: "mgmt", Device: &hostnet.Device{Kind: "vlan", Parent: "bond0", VLANID: 5}},
		{Do: hostnet.SetUp, Link: "mgmt"},
		{Do: hostnet.AddAddress, Link: "mgmt", Text: "10.0.0.2/24"},
		{Do: hostnet.AddRoute, Link: "mgmt", Route: &hostnet.Route{Destination: "0.0.0.0/0", Gateway: "10.0.0.1", Source: "boot"}},
		{Do: hostnet.AddAddress, Link: "eth1", Text: "192.168.7.2/24"},
		{Do: hostnet.AddRoute, Link: "eth1", Route: &hostnet.Route{Destination: "192.168.7.0/24", Source: "kernel"}},
	} {
		if err := kernel.Do(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	return b, kernel
}

// pci keeps what sysfs would say, which the root of these tests does not have.
type pci struct{ *links.Kernel }

func (p *pci) Dump(ctx ctxT, reach []netip.Addr) (hostnet.State, error) {
	state, err := p.Kernel.Dump(ctx, reach)
	for i := range state.Links {
		state.Links[i].PCI = nil // Observe would look it up
	}
	return state, err
}

func TestUplinkIsClosedDownwards(t *testing.T) {
	b, _ := datacentre(t)
	b.host.Reach = []netip.Addr{netip.MustParseAddr("192.168.7.9")}
	state, err := b.host.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"mgmt":  "the default route 0.0.0.0/0 via 10.0.0.1 leaves through it",
		"bond0": "mgmt lies on it, and the default route 0.0.0.0/0 via 10.0.0.1 leaves through it",
		"eth0":  "it is a port of bond0, and mgmt lies on it, and the default route 0.0.0.0/0 via 10.0.0.1 leaves through it",
		"eth1":  "the way to 192.168.7.9 leads through it",
	}
	if diff := cmp.Diff(want, state.Uplink()); diff != "" {
		t.Error(diff)
	}
	vf := hostnet.State{
		Links: []hostnet.Link{
			{Name: "pf", PCI: &hostnet.PCI{Address: "0000:01:00.0"}},
			{Name: "vf", PCI: &hostnet.PCI{Address: "0000:01:10.0", PF: "0000:01:00.0"}},
			{Name: "br-ex", Kind: "openvswitch"},
			{Name: "eth5", Master: "ovs-system"},
		},
		Routes: []hostnet.Route{{Destination: "::/0", Link: "vf"}, {Destination: "0.0.0.0/0", Link: "br-ex"}},
	}
	if got := vf.Uplink(); got["pf"] == "" || got["eth5"] == "" {
		t.Errorf("got %v", got)
	}
}

// TestRefusals says what is refused, by which guard, and on what evidence.
func TestRefusals(t *testing.T) {
	const shim = "hostShim: {name: shim0, addresses: [10.7.0.2/32]}"
	for name, test := range map[string]struct{ interfaces, want string }{
		"the uplink's card": {
			"  - {name: a, match: {name: eth0}, mtu: 9000}\n",
			"guard uplink: eth0: set MTU of eth0 from 1500 to 9000: the node is reached through it (it is a port of bond0, and mgmt lies on it, and the default route 0.0.0.0/0 via 10.0.0.1 leaves through it)",
		},
		"a card that the host uses": {
			"  - {name: a, match: {name: eth1}, bridge: {name: br1}}\n",
			"guard in-use: eth1: make eth1 a port of br1: the host itself uses it, and would not any more (the host has 192.168.7.2/24 there)",
		},
		"no such card": {
			"  - {name: a, match: {name: eth9}}\n",
			"guard match: a: no network card of this host matches name eth9",
		},
		"a link of that name": {
			"  - {name: a, match: {name: eth2}, bridge: {name: mgmt}}\n",
			"guard foreign: mgmt: there is a link of this name that somebody else has made; choose another name, or remove it (mgmt is a VLAN)",
		},
		"a VLAN that is there": {
			"  - {name: a, match: {name: eth2}, vlans: [{id: 9, name: v9}]}\n",
			"guard foreign: v9: VLAN 9 of eth2 is there already, as old9",
		},
		"a port of somebody's bridge": {
			"  - {name: a, match: {name: eth3}, bridge: {name: br1}}\n",
			"guard foreign: eth3: it is a port of virbr0, which somebody else has made it; take it out there first (master virbr0)",
		},
		"a macvlan on a port": {
			"  - {name: a, match: {name: eth3}, " + shim + "}\n",
			"guard macvlan: shim0: eth3 is a port of virbr0, and so cannot be the parent of a macvlan interface; use the bridge, or a VLAN",
		},
		"a port below a macvlan": {
			"  - {name: a, match: {name: eth2}, bridge: {name: br1}}\n",
			"guard macvlan: eth2: make eth2 a port of br1: the parent of a macvlan interface cannot be a port (macvlan net1 of process 77 (qemu) lies on it, with MTU 1500)",
		},
		"a VLAN larger than its card": {
			"  - {name: a, match: {name: eth2}, vlans: [{id: 7, name: v7, mtu: 2000}]}\n",
			"guard mtu: v7: its MTU 2000 is more than that of eth2 below, 1500",
		},
		"a card below larger ones": {
			"  - {name: a, match: {name: eth2}, mtu: 1400}\n",
			"guard in-use: eth2: set MTU of eth2 from 1500 to 1400: it would shrink what lies on it (VLAN old9 lies on it, with MTU 1500; macvlan net1 of process 77 (qemu) lies on it, with MTU 1500)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, kernel := datacentre(t)
			for _, op := range []hostnet.Op{
				{Do: hostnet.AddLink, Link: "old9", Device: &hostnet.Device{Kind: "vlan", Parent: "eth2", VLANID: 9, Protocol: "802.1Q"}},
				{Do: hostnet.AddLink, Link: "virbr0", Device: &hostnet.Device{Kind: "bridge"}},
				{Do: hostnet.SetMaster, Link: "eth3", Text: "virbr0"},
			} {
				if err := kernel.Do(t.Context(), op); err != nil {
					t.Fatal(err)
				}
			}
			b.host.Away = func(ctxT, []hostnet.Link) (map[string][]hostnet.Away, []string, error) {
				return map[string][]hostnet.Away{"eth2": {{Name: "net1", Kind: "macvlan", MTU: 1500, User: "process 77 (qemu)"}}}, nil, nil
			}
			before := b.dump()
			plan, err := b.plan(policy(test.interfaces))
			if err != nil || len(plan.Refusals) == 0 {
				t.Fatalf("got %+v, %v", plan, err)
			}
			var got []string
			for i := range plan.Refusals {
				got = append(got, plan.Refusals[i].Error())
			}
			if got[0] != test.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), test.want)
			}
			if _, err := b.apply(policy(test.interfaces)); err == nil || b.dump() != before {
				t.Errorf("applied: %v", err)
			}
		})
	}
}

func TestUnreadableNamespacesCountAsUse(t *testing.T) {
	b, _ := datacentre(t)
	b.must(policy("  - {name: a, match: {name: eth2}, mtu: 9000}\n"))
	b.host.Away = func(ctxT, []hostnet.Link) (map[string][]hostnet.Away, []string, error) {
		return nil, []string{"readlink /proc/9/ns/net: permission denied"}, nil
	}
	plan, err := b.plan(policy("  - {name: a, match: {name: eth2}, mtu: 2000}\n"))
	if err != nil || len(plan.Refusals) != 1 || plan.Refusals[0].Guard != "in-use" || plan.Refusals[0].Evidence[0] != "readlink /proc/9/ns/net: permission denied" {
		t.Errorf("got %+v, %v", plan, err)
	}
}

func TestDisruptionHasToBeAllowed(t *testing.T) {
	b, _ := datacentre(t)
	text := policy("  - {name: a, match: {name: eth2}}\n  - {name: b, bond: {name: bond1, ports: [a]}}\n")
	b.must(policy("  - {name: a, match: {name: eth2}}\n")) // which is up now, and has to go down to enter
	plan, err := b.plan(strings.Replace(text, "Allow", "None", 1))
	if err != nil || len(plan.Refusals) != 1 || plan.Refusals[0].Guard != "disruption" {
		t.Errorf("got %+v, %v", plan, err)
	}
	b.must(text)
}

func TestPoliciesMerge(t *testing.T) {
	b, _ := datacentre(t)
	one := func(name string, priority int, interfaces string) string {
		return fmt.Sprintf("---\napiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: %s}\nspec:\n  priority: %d\n  disruption: Allow\n  interfaces:\n%s", name, priority, interfaces)
	}
	both := one("a", 0, "  - {name: x, match: {name: eth2}, mtu: 9000, vlans: [{id: 7, name: v7}]}\n") +
		one("b", 0, "  - {name: y, match: {permanentMAC: '52:54:00:00:00:02'}, mtu: 4000, vlans: [{id: 8, name: v8}]}\n")
	plan, err := b.plan(both)
	want := "guard conflict: eth2: the policies a and b want its mtu to be 9000 and 4000, with the same priority: change one, or give them priorities"
	if err != nil || len(plan.Refusals) != 1 || plan.Refusals[0].Error() != want {
		t.Errorf("got %+v, %v", plan.Refusals, err)
	}
	b.must(strings.Replace(both, "priority: 0", "priority: 5", 1))
	state, err := b.host.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	eth2, _ := state.Link("eth2")
	_, v7 := state.Link("v7")
	_, v8 := state.Link("v8")
	if eth2.MTU != 9000 || !v7 || !v8 || !cmp.Equal(eth2.Altnames, []string{"x", "y"}) {
		t.Errorf("got %+v, %v, %v", eth2, v7, v8)
	}
}

func TestGuardSeesWhatHasChangedSince(t *testing.T) {
	b, kernel := datacentre(t)
	text := policy("  - {name: a, match: {name: eth2}, mtu: 9000, hostShim: {name: shim0}}\n")
	plan, err := b.plan(text)
	if err != nil {
		t.Fatal(err)
	}
	w := &hostnet.Writer{Host: b.host}
	for name, test := range map[string]struct {
		op   hostnet.Op
		step int
		want string
	}{
		"another MTU":            {hostnet.Op{Do: hostnet.SetMTU, Link: "eth2", Number: 4000}, 1, "guard changed: eth2: set MTU of eth2 from 1500 to 9000: it was 1500 when the plan was made, and is 4000 now"},
		"a link of that name":    {hostnet.Op{Do: hostnet.AddLink, Link: "shim0", Device: &hostnet.Device{Kind: "bridge"}}, 3, "guard foreign: shim0: create macvlan shim0 on eth2, MTU 9000: somebody has made a link of this name by now"},
		"it is the uplink now":   {hostnet.Op{Do: hostnet.AddRoute, Link: "eth2", Route: &hostnet.Route{Destination: "0.0.0.0/0", Metric: 9}}, 1, "guard uplink: eth2: set MTU of eth2 from 1500 to 9000: the node is reached through it (the default route 0.0.0.0/0 leaves through it)"},
		"it is not there at all": {hostnet.Op{Do: hostnet.DeleteLink, Link: "eth2"}, 1, "guard identity: eth2: set MTU of eth2 from 1500 to 9000: there is no such link any more"},
	} {
		if name != "another MTU" {
			b, kernel = datacentre(t)
			w = &hostnet.Writer{Host: b.host}
		}
		if name == "it is the uplink now" {
			if err := kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetUp, Link: "eth2"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := kernel.Do(t.Context(), test.op); err != nil {
			t.Fatal(err)
		}
		if err := w.Guard(t.Context(), plan.Steps[test.step]); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestWhatOthersChangedIsLeftAlone(t *testing.T) {
	b, kernel := datacentre(t)
	b.must(policy("  - {name: a, match: {name: eth2}, mtu: 9000}\n"))
	if err := kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetMTU, Link: "eth2", Number: 4000}); err != nil {
		t.Fatal(err)
	}
	plan, err := b.plan("")
	if err != nil || len(plan.Notes) != 1 || plan.Notes[0] != "mtu of eth2 is 4000, and not what we made it: it is left alone" {
		t.Errorf("got %+v, %v", plan, err)
	}
	b.must("")
	if state, err := b.host.Observe(t.Context()); err != nil || state.Links[3].MTU != 4000 || len(state.Links[3].Altnames) != 0 {
		t.Errorf("got %+v, %v", state.Links[3], err)
	}
}

func TestManagersAreNamed(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		want       bool
	}{
		"NetworkManager":                 {"/run/NetworkManager/devices/4", "[device]\nmanaged=true\n", true},
		"NetworkManager that does not":   {"/run/NetworkManager/devices/4", "[device]\nmanaged=false\n", false},
		"systemd-networkd":               {"/run/systemd/netif/links/4", "# private\nADMIN_STATE=configured\n", true},
		"systemd-networkd that does not": {"/run/systemd/netif/links/4", "ADMIN_STATE=unmanaged\n", false},
		"ifupdown":                       {"/etc/network/interfaces", "auto eth2\niface eth2 inet dhcp\n", true},
	} {
		b, _ := datacentre(t)
		write(t, b.host.Root.Dir()+test.file, test.text)
		plan, err := b.plan(policy("  - {name: a, match: {name: eth2}, mtu: 9000}\n"))
		if err != nil || (len(plan.Notes) == 1) != test.want {
			t.Errorf("%s: %v, %v", name, plan.Notes, err)
		}
	}
}

// FuzzPlan plans whatever can be read. Nothing panics, no step touches the
// uplink, and a plan that is not refused brings a host there that behaves.
func FuzzPlan(f *testing.F) {
	for _, stage := range stages(fakeBench(f))[1:] {
		f.Add([]byte(strings.ReplaceAll(strings.ReplaceAll(stage, "nic0", "eth2"), "nic1", "eth3")))
	}
	f.Add([]byte(policy("  - {name: a, match: {name: eth0}, mtu: 9000}\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		policies, err := config.ParsePolicies(data)
		if err != nil {
			return
		}
		b, kernel := datacentre(t)
		state, err := b.host.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		spec, refusals := hostnet.Resolve(policies, &state)
		plan := hostnet.Plan(spec, state, reconcile.State{})
		plan.Refusals = append(plan.Refusals, refusals...)
		if len(plan.Refusals) > 0 {
			return
		}
		uplink := state.Uplink()
		w := &hostnet.Writer{Host: b.host}
		for i, step := range plan.Steps {
			if _, member := uplink[step.Target]; member && step.Kind != "link/altname" {
				t.Fatalf("step %q touches the uplink", step)
			}
			if err := w.Guard(t.Context(), step); err != nil {
				t.Fatalf("step %d, %q, of %v: a guard stops it: %v", i, step, plan.Steps, err)
			}
			if _, err := w.Apply(t.Context(), step); err != nil {
				t.Fatalf("step %d, %q, of %v: %v\n%s", i, step, plan.Steps, err, kernel)
			}
		}
	})
}
