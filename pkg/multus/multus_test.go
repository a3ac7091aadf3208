package multus_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/pkg/multus"
)

func storage(t *testing.T) []v1alpha1.HostNetwork {
	t.Helper()
	data, err := os.ReadFile("testdata/storage.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := config.ParsePolicies(data)
	if err != nil {
		t.Fatal(err)
	}
	return policies
}

func TestPoolsOfTwoCardsAreOneResource(t *testing.T) {
	objects, err := multus.DevicePlugins(storage(t))
	if err != nil || len(objects) != 2 {
		t.Fatal(objects, err)
	}
	const want = `{"resourceList":[` +
		`{"resourcePrefix":"virtnode.io","resourceName":"fast","selectors":[{"drivers":["vfio-pci"],"rootDevices":["0000:01:00.0#0-2"]},{"drivers":["vfio-pci"],"pfNames":["ens2f1#0-1"]}]},` +
		`{"resourcePrefix":"virtnode.io","resourceName":"tenant","selectors":{"rootDevices":["0000:01:00.0#4-6"]}}]}`
	if diff := cmp.Diff(want, objects[0].Data["config.json"]); diff != "" {
		t.Error(diff)
	}
	policies := storage(t)
	policies[0].Spec.Interfaces[1].Match = &v1alpha1.Match{PCIAddress: "0000:02:00.0"}
	objects, err = multus.DevicePlugins(policies)
	if err != nil || !strings.Contains(objects[0].Data["config.json"], `"selectors":{"drivers":["vfio-pci"],"rootDevices":["0000:01:00.0#0-2","0000:02:00.0#0-1"]}`) {
		t.Error(objects[0].Data, err)
	}
}

func TestWhatPluginsCannotDoIsSaid(t *testing.T) {
	for want, spoil := range map[string]func(*v1alpha1.HostNetworkSpec){
		`interface storage: pool fast: the SR-IOV device plugin takes letters, digits and _ only, and not "fast-vfs": set resourceName`: func(s *v1alpha1.HostNetworkSpec) {
			s.Interfaces[0].SRIOV.Pools[0].ResourceName = "virtnode.io/fast-vfs"
		},
		"interface storage: pool fast: the SR-IOV device plugin finds a PF by its PCI address or name": func(s *v1alpha1.HostNetworkSpec) {
			s.Interfaces[0].Match = &v1alpha1.Match{Driver: "igb"}
		},
		`attachment vms/tap-of-long-name: the macvtap device plugin has room for names of 10 letters`: func(s *v1alpha1.HostNetworkSpec) {
			s.Attachments[5].Name = "tap-of-long-name"
		},
		"attachment other/tap: another attachment of this name wants the macvtap resource to be otherwise": func(s *v1alpha1.HostNetworkSpec) {
			other := s.Attachments[5]
			other.Namespace, other.Mode = "other", "vepa"
			s.Attachments = append(s.Attachments, other)
		},
	} {
		policies := storage(t)
		spoil(&policies[0].Spec)
		if _, err := multus.DevicePlugins(policies); err == nil || !strings.Contains(err.Error(), "policy storage: "+want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func TestAttachmentsThatContradictAreRefused(t *testing.T) {
	policies := append(storage(t), storage(t)...)
	policies[1].Name = "again"
	if _, err := multus.Attachments(policies); err == nil || !strings.Contains(err.Error(), "attachment vms/fast is in the policies storage and again") {
		t.Errorf("got %v", err)
	}
	policies = storage(t)
	policies[0].Spec.Interfaces[1].SRIOV.Pools[0].ResourceName = "virtnode.io/other"
	if _, err := multus.Attachments(policies); err == nil || !strings.Contains(err.Error(), `pool "fast" is there with the resources virtnode.io/fast and virtnode.io/other`) {
		t.Errorf("got %v", err)
	}
	policies[0].Spec.Attachments[0].Pool = "none"
	if _, err := multus.Attachments(policies); err == nil || !strings.Contains(err.Error(), `no pool has the name "none"`) {
		t.Errorf("got %v", err)
	}
}
