package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// fullStatus says something in nearly every field of a NodeVirtualization.
const fullStatus = `agent: v1.2.3
verdict: NotReady
reasons: ModuleNotLoaded
factsDigest: 122192845b3b
findings: [{area: kvm, check: device, level: required, status: NotReady, reason: ModuleNotLoaded, message: no module, remedy: load it}]
pfs: [{pciAddress: "0000:01:00.0", name: nic0, driver: igb, numaNode: 0, total: 7, configured: 3}]
vfs: {total: 7, configured: 3}
networks:
- {policy: storage, observedGeneration: 2, state: Pending, planHash: 4be7a91c02de, steps: [one], interfaces: [{name: storage, link: nic0, ready: false, message: not yet}]}
conditions: [{type: VirtualizationReady, status: "False", reason: ModuleNotLoaded, message: no module, lastTransitionTime: "2026-01-02T03:04:05Z"}]
`

// TestNodeVirtualizationsAreChecked gives one good and bad statuses.
func TestNodeVirtualizationsAreChecked(t *testing.T) {
	config := withKinds(t)
	objects, clients := newObjects(t, config), kubernetes.NewForConfigOrDie(config)
	object := &v1alpha1.NodeVirtualization{}
	object.Name = "checked"
	if err := objects.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Delete(t.Context(), object) })
	var many []string
	for i := range 257 {
		many = append(many, fmt.Sprintf("{area: kvm, check: c%d, status: Ready}", i))
	}
	for name, test := range map[string]struct {
		old, new string
		refused  bool
	}{
		"everything":                     {},
		"a host that tells no NUMA node": {old: "numaNode: 0, "},
		"another agent's word":           {old: "status: NotReady, reason", new: "status: Unsure, reason"},
		"a finding without a check":      {old: "check: device, ", refused: true},
		"a finding without a status":     {old: "status: NotReady, reason: ModuleNotLoaded, ", refused: true},
		"more findings than there are":   {old: "findings: [", new: "findings: [" + strings.Join(many, ", ") + ", ", refused: true},
		"a card without an address":      {old: `pciAddress: "0000:01:00.0", `, refused: true},
		"a number that is a word":        {old: "vfs: {total: 7", new: "vfs: {total: seven", refused: true},
		"VFs that nobody counted":        {old: "vfs: {total: 7, configured: 3}", new: "vfs: {total: 7}", refused: true},
		"a policy without a state":       {old: "state: Pending, ", refused: true},
		"a policy twice":                 {old: "networks:\n", new: "networks:\n- {policy: storage, state: Converged}\n", refused: true},
		"an interface of nobody":         {old: "{name: storage, link", new: "{link", refused: true},
		"a condition between":            {old: `status: "False"`, new: "status: Maybe", refused: true},
		"a condition for no reason":      {old: "reason: ModuleNotLoaded, message: no module, last", new: "reason: '', message: no module, last", refused: true},
		"a condition of no time":         {old: `, lastTransitionTime: "2026-01-02T03:04:05Z"`, refused: true},
		"a condition twice":              {old: "conditions: [", new: "conditions: [{type: VirtualizationReady, status: Unknown, reason: No, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}, ", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(fullStatus, test.old, test.new, 1)
			if test.old != "" && text == fullStatus {
				t.Fatalf("%q is not in the status", test.old)
			}
			status, err := yaml.YAMLToJSON([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			err = patch(t, clients, attempt{"/apis/virtnode.io/v1alpha1/nodevirtualizations/checked/status", mergePatch, `{"status":` + string(status) + `}`, ""})
			if apierrors.IsInvalid(err) != test.refused || err != nil && !test.refused {
				t.Errorf("the API server says %v", err)
			}
		})
	}
}
