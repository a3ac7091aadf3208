package multus

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

const (
	// cniVersion is one that every plugin knows.
	cniVersion = "0.3.1"
	// resourceAnnotation tells Multus which device plugin gives the device.
	resourceAnnotation = "k8s.v1.cni.cncf.io/resourceName"
	macvtapPrefix      = "macvtap.network.kubevirt.io/"
)

// network is a CNI configuration, of all plugins that are rendered.
type network struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Master     string `json:"master,omitempty"`
	Bridge     string `json:"bridge,omitempty"`
	Mode       string `json:"mode,omitempty"`
	MTU        int    `json:"mtu,omitempty"`
	VLAN       int    `json:"vlan,omitempty"`
	IPAM       *ipam  `json:"ipam,omitempty"`
}

// Attachments renders the NetworkAttachmentDefinitions of policies.
func Attachments(policies []v1alpha1.HostNetwork) ([]Object, error) {
	var objects []Object
	var bad []error
	owners := make(map[string]string)
	for i := range policies {
		policy := &policies[i]
		for _, attachment := range policy.Spec.Attachments {
			key := attachment.Namespace + "/" + attachment.Name
			if owner, taken := owners[key]; taken {
				bad = append(bad, fmt.Errorf("attachment %s is in the policies %s and %s", key, owner, policy.Name))
				continue
			}
			owners[key] = policy.Name
			object, err := definition(policy, attachment)
			if err != nil {
				bad = append(bad, fmt.Errorf("policy %s: attachment %s: %w", policy.Name, key, err))
				continue
			}
			objects = append(objects, object)
		}
	}
	return objects, errors.Join(bad...)
}

func definition(policy *v1alpha1.HostNetwork, a v1alpha1.Attachment) (Object, error) {
	object := Object{
		APIVersion: "k8s.cni.cncf.io/v1", Kind: "NetworkAttachmentDefinition",
		Metadata: Metadata{Name: a.Name, Namespace: a.Namespace},
	}
	config := network{CNIVersion: cniVersion, Name: a.Name, Type: a.Type, MTU: a.MTU, VLAN: a.VLAN, IPAM: newIPAM(a.IPAM)}
	resource := ""
	switch a.Type {
	case v1alpha1.AttachMacvlan:
		config.Master, config.Mode = a.Parent, a.Mode
	case v1alpha1.AttachBridge:
		config.Bridge = a.Parent
	case v1alpha1.AttachMacvtap:
		resource = macvtapPrefix + a.Name
	case v1alpha1.AttachSRIOV:
		var err error
		if resource, err = resourceOf(policy, a.Pool); err != nil {
			return object, err
		}
		config.MTU = 0 // sriov-cni sets none
	default:
		return object, fmt.Errorf("unknown type %q", a.Type)
	}
	if resource != "" {
		object.Metadata.Annotations = map[string]string{resourceAnnotation: resource}
	}
	object.Spec = &Definition{Config: text(config)}
	return object, nil
}

// resourceOf returns the resource of a pool, which several cards may have.
func resourceOf(policy *v1alpha1.HostNetwork, name string) (string, error) {
	resource := ""
	for _, of := range policy.Spec.Interfaces {
		if of.SRIOV == nil {
			continue
		}
		for _, pool := range of.SRIOV.Pools {
			switch {
			case pool.Name != name || pool.ResourceName == resource:
			case resource != "":
				return "", fmt.Errorf("pool %q is there with the resources %s and %s", name, resource, pool.ResourceName)
			default:
				resource = pool.ResourceName
			}
		}
	}
	if resource == "" {
		return "", fmt.Errorf("no pool has the name %q", name)
	}
	return resource, nil
}

// ipam is the part of a configuration about addresses, of all plugins that are
// rendered.
type ipam struct {
	Type       string    `json:"type"`
	Range      string    `json:"range,omitempty"`       // whereabouts
	RangeStart string    `json:"range_start,omitempty"` // whereabouts
	RangeEnd   string    `json:"range_end,omitempty"`   // whereabouts
	Exclude    []string  `json:"exclude,omitempty"`     // whereabouts
	Gateway    string    `json:"gateway,omitempty"`     // whereabouts
	Ranges     [][]pool  `json:"ranges,omitempty"`      // host-local
	Addresses  []address `json:"addresses,omitempty"`   // static
	Routes     []route   `json:"routes,omitempty"`
}

type pool struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart,omitempty"`
	RangeEnd   string `json:"rangeEnd,omitempty"`
	Gateway    string `json:"gateway,omitempty"`
}

type address struct {
	Address string `json:"address"`
	Gateway string `json:"gateway,omitempty"`
}

type route struct {
	Destination string `json:"dst"`
	Gateway     string `json:"gw,omitempty"`
}

func newIPAM(want *v1alpha1.IPAM) *ipam {
	if want == nil {
		return nil
	}
	i := &ipam{Type: want.Type}
	for _, destination := range want.Routes {
		i.Routes = append(i.Routes, route{destination, want.Gateway})
	}
	switch want.Type {
	case "whereabouts":
		i.Range, i.RangeStart, i.RangeEnd, i.Exclude, i.Gateway = want.Range, want.RangeStart, want.RangeEnd, want.Exclude, want.Gateway
	case "host-local":
		i.Ranges = [][]pool{{{want.Range, want.RangeStart, want.RangeEnd, want.Gateway}}}
	case "static":
		for _, text := range want.Addresses {
			i.Addresses = append(i.Addresses, address{text, gatewayFor(text, want.Gateway)})
		}
	}
	return i
}

// gatewayFor leaves out a gateway of the other family, or of another network.
func gatewayFor(prefix, gateway string) string {
	network, err := netip.ParsePrefix(prefix)
	via, err2 := netip.ParseAddr(gateway)
	if err != nil || err2 != nil || !network.Masked().Contains(via) {
		return ""
	}
	return gateway
}
