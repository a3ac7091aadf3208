package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/config"
)

// fullPolicy says something in nearly every field.
const fullPolicy = `apiVersion: virtnode.io/v1alpha1
kind: HostNetwork
metadata: {name: full}
spec:
  nodeSelector: {matchLabels: {rack: a}}
  priority: 3
  disruption: None
  approvedPlans: [4be7a91c02de]
  maxUnavailable: 2
  probes: {timeout: 45s, targets: [gateway, apiserver, "tcp://10.0.0.1:22"]}
  interfaces:
  - name: storage
    match: {pciAddress: "0000:01:00.0", permanentMAC: "52:54:00:12:34:56", driver: igb, vendor: "8086", device: "10c9"}
    mtu: 9000
    sriov:
      numVFs: 7
      pools:
      - {name: fast, vfs: "0-3", driver: vfio-pci, trust: true, spoofCheck: false}
      - {name: tenant, vfs: "4-5,6", vlan: 100, qos: 3, vlanProtocol: 802.1Q, minTxRate: 10, maxTxRate: 1000, linkState: auto, mtu: 1500, resourceName: example.org/tenant}
    vlans: [{id: 77, name: storage77, protocol: 802.1ad, mtu: 1500}]
    bridge: {name: br1, vlanFiltering: true, vlans: ["10-20", "30"]}
    hostShim: {name: shim0, parent: storage77, addresses: [10.7.0.2/32, "fd00::1/64"], routes: [10.7.0.0/24]}
  - {name: left, match: {name: nic1}}
  - {name: pair, bond: {name: bond1, ports: [left], mode: 802.3ad, monitorInterval: 100, lacpRate: fast, transmitHashPolicy: layer3+4}}
  attachments:
  - {name: storage-fast, namespace: vms, type: sriov, pool: fast, vlan: 5}
  - {name: storage77, namespace: vms, type: macvlan, parent: storage77, mode: bridge, mtu: 1400, ipam: {type: whereabouts, range: 10.7.0.0/24, rangeStart: 10.7.0.10, rangeEnd: 10.7.0.20, exclude: [10.7.0.12/32], gateway: 10.7.0.1, routes: [10.8.0.0/16]}}
  - {name: taps, type: macvtap, parent: pair, capacity: 10}
  - {name: plain, type: bridge, parent: br1, ipam: {type: static, addresses: [10.9.0.2/24]}}
`

// dryRun asks the API server whether it takes a document.
func dryRun(t *testing.T, objects client.Client, document string) error {
	t.Helper()
	var object unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
		t.Fatal(err)
	}
	return objects.Create(t.Context(), &object, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
}

func TestGoodDocumentsAreTaken(t *testing.T) {
	objects := newObjects(t, withKinds(t))
	for name, document := range map[string]string{
		"everything":       fullPolicy,
		"nothing but this": "{apiVersion: virtnode.io/v1alpha1, kind: HostNetwork, metadata: {name: small}, spec: {}}",
		"a share of nodes": strings.Replace(fullPolicy, "maxUnavailable: 2", "maxUnavailable: 10%", 1),
		"no share":         strings.Replace(fullPolicy, "maxUnavailable: 2", "maxUnavailable: 0%", 1),
		"zeros":            "{apiVersion: virtnode.io/v1alpha1, kind: HostNetwork, metadata: {name: zeros}, spec: {maxUnavailable: 0, probes: {targets: []}, interfaces: [{name: a, match: {driver: igb}, mtu: 0, sriov: {numVFs: 0}}]}}",
	} {
		if err := dryRun(t, objects, document); err != nil {
			t.Errorf("%s: the API server says %v", name, err)
		}
		if _, err := config.ParsePolicies([]byte(document)); err != nil {
			t.Errorf("%s: the agent says %v", name, err)
		}
	}
}

// What the API server refuses the agent refuses too. The agent sees more: what
// a rule of a field, or of one interface, cannot look at.
func TestBadDocumentsAreRefused(t *testing.T) {
	objects := newObjects(t, withKinds(t))
	for name, test := range map[string]struct {
		old, new  string
		agentOnly bool
	}{
		"an unknown field":              {old: "numVFs: 7", new: "numVfs: 7"},
		"a field of another type":       {old: "mtu: 9000", new: "mtu: big"},
		"a name with a capital":         {old: "{name: full}", new: "{name: Full}"},
		"a disruption between":          {old: "disruption: None", new: "disruption: Some"},
		"a plan that is no hash":        {old: "4be7a91c02de", new: "latest"},
		"a plan twice":                  {old: "[4be7a91c02de]", new: "[4be7a91c02de, 4be7a91c02de]"},
		"fewer than no nodes":           {old: "maxUnavailable: 2", new: "maxUnavailable: -1"},
		"more nodes than there can be":  {old: "maxUnavailable: 2", new: "maxUnavailable: 10001"},
		"more than all nodes":           {old: "maxUnavailable: 2", new: "maxUnavailable: 101%"},
		"a share without its sign":      {old: "maxUnavailable: 2", new: `maxUnavailable: "2"`},
		"a part of a hundredth":         {old: "maxUnavailable: 2", new: "maxUnavailable: 2.5%"},
		"a duration without a unit":     {old: "45s", new: `"45"`},
		"a long timeout":                {old: "45s", new: "11m"},
		"a probe that is not known":     {old: "tcp://10.0.0.1:22", new: "http://x"},
		"two interfaces of one name":    {old: "{name: left, match: {name: nic1}}", new: "{name: storage, match: {name: nic1}}"},
		"neither match nor bond":        {old: ", match: {name: nic1}", new: ""},
		"match and bond":                {old: "bond: {name: bond1", new: "match: {name: nic2}, bond: {name: bond1"},
		"an empty match":                {old: "match: {name: nic1}", new: "match: {}"},
		"a device without a vendor":     {old: `vendor: "8086", `, new: ""},
		"a PCI address without domain":  {old: "0000:01:00.0", new: "01:00.0"},
		"a MAC in capitals":             {old: "52:54:00:12:34:56", new: "52:54:00:AB:34:56"},
		"a small MTU":                   {old: "mtu: 9000", new: "mtu: 67"},
		"a large MTU":                   {old: "mtu: 9000", new: "mtu: 65536"},
		"VFs of a bond":                 {old: "{name: pair, ", new: "{name: pair, sriov: {numVFs: 1}, "},
		"negative VFs":                  {old: "numVFs: 7", new: "numVFs: -1"},
		"two pools of one name":         {old: "name: tenant", new: "name: fast"},
		"a pool with a capital":         {old: "{name: tenant", new: "{name: Tenant"},
		"VFs that are no list":          {old: `"0-3"`, new: `"0 to 3"`},
		"a VLAN beyond":                 {old: "vlan: 100", new: "vlan: 4095"},
		"a priority without a VLAN":     {old: "vlan: 100, qos: 3, vlanProtocol: 802.1Q", new: "qos: 3"},
		"a protocol without a VLAN":     {old: "vlan: 100, qos: 3, ", new: ""},
		"rates in the wrong order":      {old: "minTxRate: 10,", new: "minTxRate: 1001,"},
		"a word for a link state":       {old: "linkState: auto", new: "linkState: up"},
		"an MTU on vfio-pci":            {old: "driver: vfio-pci, trust", new: "driver: vfio-pci, mtu: 1500, trust"},
		"a resource without a domain":   {old: "example.org/tenant", new: "tenant"},
		"VLAN 0":                        {old: "{id: 77", new: "{id: 0"},
		"a protocol that is none":       {old: "802.1ad", new: "802.1x"},
		"a long link name":              {old: "name: br1, vlanF", new: "name: a-bridge-of-long-name, vlanF"},
		"tags without filtering":        {old: "vlanFiltering: true, ", new: ""},
		"tags that are words":           {old: `"10-20"`, new: `"ten"`},
		"an address without a length":   {old: "10.7.0.2/32", new: "10.7.0.2"},
		"IPv4 dressed as IPv6":          {old: "fd00::1/64", new: "::ffff:10.7.0.2/128"},
		"a route with host bits":        {old: "routes: [10.7.0.0/24]}", new: "routes: [10.7.0.1/24]}"},
		"a route for everything":        {old: "routes: [10.7.0.0/24]}", new: "routes: [0.0.0.0/0]}"},
		"a bond of nothing":             {old: "ports: [left]", new: "ports: []"},
		"a port twice":                  {old: "ports: [left]", new: "ports: [left, left]"},
		"a mode that is none":           {old: "mode: 802.3ad", new: "mode: fastest"},
		"an LACP rate elsewhere":        {old: "mode: 802.3ad", new: "mode: active-backup"},
		"a hash that is none":           {old: "layer3+4", new: "layer7"},
		"an attachment of no type":      {old: "type: sriov, pool: fast", new: "pool: fast"},
		"an attachment of another type": {old: "type: bridge, parent: br1", new: "type: ipvlan, parent: br1"},
		"two attachments of one name":   {old: "{name: storage77, namespace: vms, type", new: "{name: storage-fast, namespace: vms, type"},
		"sriov without a pool":          {old: ", pool: fast", new: ""},
		"macvtap without a parent":      {old: ", parent: pair", new: ""},
		"a mode of a bridge":            {old: "type: bridge, parent: br1", new: "type: bridge, mode: vepa, parent: br1"},
		"a VLAN of macvlan":             {old: "mode: bridge, mtu: 1400", new: "mode: bridge, vlan: 7"},
		"too many taps":                 {old: "capacity: 10", new: "capacity: 10001"},
		"a namespace with a dot":        {old: "namespace: vms, type: sriov", new: "namespace: a.b, type: sriov"},
		"addresses of nobody":           {old: "type: whereabouts", new: "type: guess"},
		"whereabouts without a range":   {old: "range: 10.7.0.0/24, ", new: ""},
		"a range that is none":          {old: "range: 10.7.0.0/24", new: "range: 10.7.0.0"},
		"a start that is none":          {old: "rangeStart: 10.7.0.10", new: "rangeStart: ten"},
		"a gateway that is none":        {old: "gateway: 10.7.0.1", new: "gateway: router"},
		"static without an address":     {old: "addresses: [10.9.0.2/24]", new: "addresses: []"},
		"a static address alone":        {old: "10.9.0.2/24", new: "10.9.0.2"},

		"a VF that does not exist":     {old: "4-5,6", new: "4-7", agentOnly: true},
		"a VF in two pools":            {old: "4-5,6", new: "3-6", agentOnly: true},
		"a VLAN larger than its card":  {old: "802.1ad, mtu: 1500", new: "802.1ad, mtu: 9001", agentOnly: true},
		"one link name for two links":  {old: "name: bond1", new: "name: br1", agentOnly: true},
		"a port that is not there":     {old: "ports: [left]", new: "ports: [right]", agentOnly: true},
		"a shim on a foreign VLAN":     {old: "parent: storage77, addresses", new: "parent: other, addresses", agentOnly: true},
		"a bridge that is not there":   {old: "parent: br1", new: "parent: br2", agentOnly: true},
		"a start beside its range":     {old: "rangeStart: 10.7.0.10", new: "rangeStart: 10.8.0.10", agentOnly: true},
		"a nodeSelector without sense": {old: "matchLabels: {rack: a}", new: "matchExpressions: [{key: rack, operator: Like}]", agentOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			document := strings.Replace(fullPolicy, test.old, test.new, 1)
			if document == fullPolicy {
				t.Fatalf("%q is not in the policy", test.old)
			}
			err := dryRun(t, objects, document)
			if err != nil && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err) {
				t.Fatal(err)
			}
			if refused := err != nil; refused == test.agentOnly {
				t.Errorf("the API server says %v", err)
			}
			if _, err := config.ParsePolicies([]byte(document)); err == nil {
				t.Error("the agent takes it")
			}
		})
	}
}

func TestListsAreBoundedAlike(t *testing.T) {
	objects := newObjects(t, withKinds(t))
	var names, targets []string
	for i := range 257 {
		names = append(names, fmt.Sprintf("{name: a%d, match: {name: n%d}}", i, i))
		targets = append(targets, fmt.Sprintf("tcp://h:%d", i+1))
	}
	for _, spec := range []string{
		"interfaces: [" + strings.Join(names, ",") + "]",
		"probes: {targets: [" + strings.Join(targets[:17], ",") + "]}",
	} {
		document := "{apiVersion: virtnode.io/v1alpha1, kind: HostNetwork, metadata: {name: many}, spec: {" + spec + "}}"
		if err := dryRun(t, objects, document); !apierrors.IsInvalid(err) {
			t.Errorf("%.20s: the API server says %v", spec, err)
		}
		if _, err := config.ParsePolicies([]byte(document)); err == nil {
			t.Errorf("%.20s: the agent takes it", spec)
		}
	}
}

func TestWhatDoesNotChange(t *testing.T) {
	objects := newObjects(t, withKinds(t))
	var policy v1alpha1.HostNetwork
	if err := yaml.Unmarshal([]byte(strings.Replace(fullPolicy, "{name: full}", "{name: lasting}", 1)), &policy); err != nil {
		t.Fatal(err)
	}
	if err := objects.Create(t.Context(), &policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Delete(t.Context(), &policy) })
	for name, test := range map[string]struct {
		change  func(spec *v1alpha1.HostNetworkSpec)
		refused bool
	}{
		"the type of an attachment": {func(s *v1alpha1.HostNetworkSpec) {
			s.Attachments[3] = v1alpha1.Attachment{Name: "plain", Type: "macvlan", Parent: "left"}
		}, true},
		"a card into a bond": {func(s *v1alpha1.HostNetworkSpec) {
			s.Interfaces[1] = v1alpha1.Interface{Name: "left", Bond: &v1alpha1.Bond{Name: "bond2", Ports: []string{"storage"}}}
		}, true},
		"an attachment of another name": {func(s *v1alpha1.HostNetworkSpec) { s.Attachments[3].Name = "other" }, false},
		"an attachment less":            {func(s *v1alpha1.HostNetworkSpec) { s.Attachments = s.Attachments[1:] }, false},
		"another MTU":                   {func(s *v1alpha1.HostNetworkSpec) { s.Interfaces[0].MTU = 8000 }, false},
	} {
		changed := policy.DeepCopy()
		test.change(&changed.Spec)
		if err := objects.Update(t.Context(), changed, client.DryRunAll); apierrors.IsInvalid(err) != test.refused || err != nil && !test.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
