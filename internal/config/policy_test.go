package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

const storagePolicy = `apiVersion: virtnode.io/v1alpha1
kind: HostNetwork
metadata: {name: storage}
spec:
  nodeSelector: {matchLabels: {rack: a}}
  disruption: Allow
  probes: {timeout: 45s, targets: [gateway, apiserver, "tcp://10.0.0.1:22"]}
  interfaces:
  - name: storage
    match: {pciAddress: "0000:01:00.0"}
    mtu: 9000
    sriov:
      numVFs: 7
      pools:
      - {name: fast, vfs: "0-3", driver: vfio-pci, trust: true, spoofCheck: false}
      - {name: tenant, vfs: "4-6", vlan: 100, qos: 3, maxTxRate: 1000}
    vlans: [{id: 77, name: storage77, mtu: 1500}]
    bridge: {name: br1, vlanFiltering: true, vlans: ["10-20"]}
    hostShim: {name: shim0, parent: storage77, addresses: [10.7.0.2/32], routes: [10.7.0.0/24]}
  attachments:
  - {name: storage-fast, namespace: vms, type: sriov, pool: fast}
  - {name: storage77, namespace: vms, type: macvlan, parent: storage77, mode: bridge, ipam: {type: whereabouts, range: 10.7.0.0/24}}
`

func TestParsePolicy(t *testing.T) {
	got, err := ParsePolicies([]byte("# two\n---\n" + storagePolicy + "---\n" + strings.Replace(storagePolicy, "name: storage}", "name: other}", 1)))
	if err != nil || len(got) != 2 || got[1].Name != "other" {
		t.Fatalf("got %d policies, %v", len(got), err)
	}
	yes, no, rate := true, false, 1000
	want := v1alpha1.HostNetworkSpec{
		NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}},
		Disruption:   v1alpha1.DisruptionAllow,
		Probes:       v1alpha1.Probes{Timeout: "45s", Targets: []string{"gateway", "apiserver", "tcp://10.0.0.1:22"}},
		Interfaces: []v1alpha1.Interface{{
			Name: "storage", Match: &v1alpha1.Match{PCIAddress: "0000:01:00.0"}, MTU: 9000,
			SRIOV: &v1alpha1.SRIOV{NumVFs: 7, Pools: []v1alpha1.Pool{
				{Name: "fast", VFs: "0-3", Driver: "vfio-pci", Trust: &yes, SpoofCheck: &no, ResourceName: "virtnode.io/fast"},
				{Name: "tenant", VFs: "4-6", VLAN: 100, QoS: 3, VLANProtocol: "802.1Q", MaxTxRate: &rate, ResourceName: "virtnode.io/tenant"},
			}},
			VLANs:    []v1alpha1.VLAN{{ID: 77, Name: "storage77", Protocol: "802.1Q", MTU: 1500}},
			Bridge:   &v1alpha1.Bridge{Name: "br1", VLANFiltering: true, VLANs: []string{"10-20"}},
			HostShim: &v1alpha1.HostShim{Name: "shim0", Parent: "storage77", Addresses: []string{"10.7.0.2/32"}, Routes: []string{"10.7.0.0/24"}},
		}},
		Attachments: []v1alpha1.Attachment{
			{Name: "storage-fast", Namespace: "vms", Type: "sriov", Pool: "fast"},
			{Name: "storage77", Namespace: "vms", Type: "macvlan", Parent: "storage77", Mode: "bridge", IPAM: &v1alpha1.IPAM{Type: "whereabouts", Range: "10.7.0.0/24"}},
		},
	}
	if diff := cmp.Diff(want, got[0].Spec); diff != "" {
		t.Error(diff)
	}
}

func TestPolicyDefaults(t *testing.T) {
	got, err := ParsePolicies([]byte(`{apiVersion: virtnode.io/v1alpha1, kind: HostNetwork, metadata: {name: a}, spec: {interfaces: [
		{name: a, match: {driver: igb}}, {name: b, bond: {name: bond1, ports: [a]}, vlans: [{id: 1, name: v}], hostShim: {name: s}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	spec := got[0].Spec
	want := v1alpha1.HostNetworkSpec{
		Disruption: "None",
		Probes:     v1alpha1.Probes{Timeout: "30s", Targets: []string{"gateway"}},
		Interfaces: []v1alpha1.Interface{
			{Name: "a", Match: &v1alpha1.Match{Driver: "igb"}},
			{
				Name: "b", Bond: &v1alpha1.Bond{Name: "bond1", Ports: []string{"a"}, Mode: "active-backup", MonitorInterval: 100, TransmitHashPolicy: "layer2"},
				VLANs: []v1alpha1.VLAN{{ID: 1, Name: "v", Protocol: "802.1Q"}}, HostShim: &v1alpha1.HostShim{Name: "s", Parent: "b"},
			},
		},
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Error(diff)
	}
}

func TestBadPoliciesNameLineAndPath(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"a field that is not known":      {"numVFs: 7", "numVfs: 7", "line 13: spec.interfaces[0].sriov.numVfs: unknown field; did you mean numVFs?"},
		"a field of another type":        {"mtu: 9000", "mtu: big", `line 11: spec.interfaces[0].mtu: "big" does not fit: want a int`},
		"a duration without a unit":      {"45s", "45", `line 7: spec.probes.timeout: "45" is not a duration; write it as 500ms, 5s or 1m30s`},
		"another kind":                   {"HostNetwork", "Network", `line 2: kind: "Network": want HostNetwork`},
		"a VF that does not exist":       {"4-6", "4-7", "line 16: spec.interfaces[0].sriov.pools[1].vfs: there is no VF 7: numVFs is 7, and the first is 0"},
		"a VF in two pools":              {"4-6", "3-6", "line 16: spec.interfaces[0].sriov.pools[1].vfs: VF 3 is in pool fast already"},
		"a VLAN larger than its parent":  {"mtu: 1500", "mtu: 9001", "line 17: spec.interfaces[0].vlans[0].mtu: 9001 is more than that of the interface below, 9000"},
		"a shim on a bridge port":        {"parent: storage77, addresses", "addresses", "line 19: spec.interfaces[0].hostShim.parent: a port of a bridge cannot be the parent of a macvlan interface: give the address to the bridge, or use a VLAN"},
		"a route for everything":         {"routes: [10.7.0.0/24]", "routes: [0.0.0.0/0]", "line 19: spec.interfaces[0].hostShim.routes[0]: 0.0.0.0/0 would take all traffic"},
		"a name that is too long":        {"name: br1", "name: a-bridge-of-long-name", `line 18: spec.interfaces[0].bridge.name: "a-bridge-of-long-name": want a link name of at most 15 letters, digits, _, - and .`},
		"a name that is there twice":     {"name: br1", "name: storage77", `line 18: spec.interfaces[0].bridge.name: "storage77" is the name of spec.interfaces[0].vlans[0].name already`},
		"no such pool":                   {"pool: fast", "pool: slow", `line 21: spec.attachments[0].pool: "slow": no pool of this policy has that name`},
		"a macvlan on a bridge port":     {"parent: storage77, mode", "parent: storage, mode", "line 22: spec.attachments[1].parent: storage is a port of the bridge br1, and so cannot carry macvlan interfaces"},
		"a probe that is not known":      {"tcp://10.0.0.1:22", "http://x", `line 7: spec.probes.targets[2]: "http://x": want gateway, apiserver or tcp://HOST:PORT`},
		"a match that says nothing":      {`{pciAddress: "0000:01:00.0"}`, "{}", "line 10: spec.interfaces[0].match: says nothing: want at least one of pciAddress, permanentMAC, driver, vendor and name"},
		"a PCI address without a domain": {"0000:01:00.0", "01:00.0", `line 10: spec.interfaces[0].match.pciAddress: "01:00.0": want an address such as 0000:01:00.0`},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(storagePolicy, test.old, test.new, 1)
			if text == storagePolicy {
				t.Fatalf("%q is not in the policy", test.old)
			}
			if _, err := ParsePolicies([]byte(text)); err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	for name, test := range map[string]struct{ text, want string }{
		"nothing":        {"# nothing", "there is no HostNetwork in it"},
		"one name twice": {storagePolicy + "---\n" + storagePolicy, "line 24: metadata.name: storage is the name of a policy above already"},
	} {
		if _, err := ParsePolicies([]byte(test.text)); err == nil || err.Error() != test.want {
			t.Errorf("%s: got %v, want %s", name, err, test.want)
		}
	}
}

func FuzzParsePolicies(f *testing.F) {
	f.Add([]byte(storagePolicy))
	f.Add([]byte("apiVersion: virtnode.io/v1alpha1\nkind: HostNetwork\nmetadata: {name: a, labels: {a: b}}\nspec: {nodeSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		policies, err := ParsePolicies(data)
		if err != nil {
			return
		}
		for _, policy := range policies {
			if problems := policy.Validate(); len(problems) > 0 {
				t.Errorf("accepted in spite of %v", problems)
			}
		}
	})
}
