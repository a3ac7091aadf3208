package multus

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// mostMacvtapName is what the macvtap plugin has room for: it names links
// NAMEMvpN, and the kernel's names have 15 bytes.
const mostMacvtapName = 10

// pluginName is what the SR-IOV device plugin takes for a resource.
var pluginName = regexp.MustCompile(`^[a-zA-Z0-9_]+$`)

// resourceList is config.json of the SR-IOV device plugin.
type resourceList struct {
	ResourceList []*resource `json:"resourceList"`
}

type resource struct {
	Prefix    string    `json:"resourcePrefix"`
	Name      string    `json:"resourceName"`
	Selectors selectors `json:"selectors"`
}

// selectors is a list, or its only member: plugins of before 2023 know no list.
type selectors []selector

func (s selectors) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]selector(s))
}

type selector struct {
	Drivers     []string `json:"drivers,omitempty"`
	RootDevices []string `json:"rootDevices,omitempty"` // PF#0-3,6
	PFNames     []string `json:"pfNames,omitempty"`     // the same, by the kernel's name
}

// macvtap is one entry of DP_MACVTAP_CONF.
type macvtap struct {
	Name        string `json:"name"`
	LowerDevice string `json:"lowerDevice"`
	Mode        string `json:"mode"`
	Capacity    int    `json:"capacity"`
}

// DevicePlugins renders the ConfigMaps of the SR-IOV and the macvtap device
// plugin, each if there is something for it. Pools that the agent offers
// itself are left out: no device is offered twice.
func DevicePlugins(policies []v1alpha1.HostNetwork) ([]Object, error) {
	var list resourceList
	var taps []macvtap
	var bad []error
	for i := range policies {
		spec := &policies[i].Spec
		for n := range spec.Interfaces {
			if err := list.add(&spec.Interfaces[n]); err != nil {
				bad = append(bad, fmt.Errorf("policy %s: interface %s: %w", policies[i].Name, spec.Interfaces[n].Name, err))
			}
		}
		for _, a := range spec.Attachments {
			var err error
			if taps, err = addMacvtap(taps, a); err != nil {
				bad = append(bad, fmt.Errorf("policy %s: attachment %s/%s: %w", policies[i].Name, a.Namespace, a.Name, err))
			}
		}
	}
	var objects []Object
	if len(list.ResourceList) > 0 {
		objects = append(objects, configMap("sriovdp-config", "config.json", list))
	}
	if len(taps) > 0 {
		objects = append(objects, configMap("macvtap-deviceplugin-config", "DP_MACVTAP_CONF", taps))
	}
	return objects, errors.Join(bad...)
}

func configMap(name, key string, value any) Object {
	return Object{
		APIVersion: "v1", Kind: "ConfigMap",
		Metadata: Metadata{Name: name, Namespace: "kube-system"}, Data: map[string]string{key: text(value)},
	}
}

// add puts the pools of an interface into the resources that they are part of.
func (l *resourceList) add(of *v1alpha1.Interface) error {
	if of.SRIOV == nil {
		return nil
	}
	for _, pool := range of.SRIOV.Pools {
		if pool.DevicePlugin {
			continue
		}
		prefix, name, _ := strings.Cut(pool.ResourceName, "/")
		if !pluginName.MatchString(name) {
			return fmt.Errorf("pool %s: the SR-IOV device plugin takes letters, digits and _ only, and not %q: set resourceName, or devicePlugin: true", pool.Name, name)
		}
		s, err := selects(of, pool)
		if err != nil {
			return fmt.Errorf("pool %s: %w", pool.Name, err)
		}
		r := l.find(prefix, name)
		i := slices.IndexFunc(r.Selectors, s.extends)
		if i < 0 {
			r.Selectors = append(r.Selectors, s)
			continue
		}
		r.Selectors[i].RootDevices = append(r.Selectors[i].RootDevices, s.RootDevices...)
		r.Selectors[i].PFNames = append(r.Selectors[i].PFNames, s.PFNames...)
	}
	return nil
}

// extends reports whether one selector can be written into another: a device
// must fit every field of one, and any one of several.
func (s selector) extends(other selector) bool {
	return slices.Equal(s.Drivers, other.Drivers) && (len(s.PFNames) == 0) == (len(other.PFNames) == 0)
}

func (l *resourceList) find(prefix, name string) *resource {
	for _, r := range l.ResourceList {
		if r.Prefix == prefix && r.Name == name {
			return r
		}
	}
	r := &resource{Prefix: prefix, Name: name}
	l.ResourceList = append(l.ResourceList, r)
	return r
}

// selects names the VFs of a pool. The plugin knows a PF by its address or by
// the kernel's name, and no alternative one.
func selects(of *v1alpha1.Interface, pool v1alpha1.Pool) (selector, error) {
	var s selector
	if pool.Driver != "" {
		s.Drivers = []string{pool.Driver}
	}
	switch match := of.Match; {
	case match != nil && match.PCIAddress != "":
		s.RootDevices = []string{match.PCIAddress + "#" + pool.VFs}
	case match != nil && match.Name != "":
		s.PFNames = []string{match.Name + "#" + pool.VFs}
	default:
		return s, errors.New("the SR-IOV device plugin finds a PF by its PCI address or name: say match.pciAddress or match.name, or devicePlugin: true")
	}
	return s, nil
}

// addMacvtap adds the resource of a macvtap attachment, once.
func addMacvtap(taps []macvtap, a v1alpha1.Attachment) ([]macvtap, error) {
	if a.Type != v1alpha1.AttachMacvtap {
		return taps, nil
	}
	if len(a.Name) > mostMacvtapName {
		return taps, fmt.Errorf("the macvtap device plugin has room for names of %d letters, and %q has %d", mostMacvtapName, a.Name, len(a.Name))
	}
	tap := macvtap{a.Name, a.Parent, a.Mode, a.Capacity}
	for _, other := range taps {
		if other == tap {
			return taps, nil
		}
		if other.Name == tap.Name {
			return taps, errors.New("another attachment of this name wants the macvtap resource to be otherwise")
		}
	}
	return append(taps, tap), nil
}
