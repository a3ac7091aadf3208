package v1alpha1

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// sriov looks at the virtual functions of a card.
func (p *problems) sriov(path string, s *SRIOV) {
	p.between(path+".numVFs", s.NumVFs, 0, maxVFIndex)
	p.atMost(path+".pools", len(s.Pools), maxPools)
	names, owners := make(map[string]bool), make(map[int]string)
	for i := range s.Pools {
		pool := &s.Pools[i]
		at := fmt.Sprintf("%s.pools[%d]", path, i)
		switch {
		case len(validation.IsDNS1123Label(pool.Name)) > 0:
			p.add(at+".name", "%q: want a name of small letters, digits and dashes", pool.Name)
		case names[pool.Name]:
			p.add(at+".name", "%q is there already", pool.Name)
		}
		names[pool.Name] = true
		p.pool(at, pool)
		indices, err := ParseIndices(pool.VFs)
		if err != nil {
			p.add(at+".vfs", "%v", err)
			continue
		}
		if last := indices[len(indices)-1]; last >= s.NumVFs {
			p.add(at+".vfs", "there is no VF %d: numVFs is %d, and the first is 0", last, s.NumVFs)
		}
		for _, index := range indices {
			if owner, taken := owners[index]; taken {
				p.add(at+".vfs", "VF %d is in pool %s already", index, owner)
				break
			}
			owners[index] = pool.Name
		}
	}
}

func (p *problems) pool(path string, pool *Pool) {
	if pool.Driver != "" && !driverName.MatchString(pool.Driver) {
		p.add(path+".driver", "%q: want the name of a driver", pool.Driver)
	}
	p.between(path+".vlan", pool.VLAN, 0, 4094)
	p.between(path+".qos", pool.QoS, 0, 7)
	if pool.VLAN == 0 && pool.QoS != 0 {
		p.add(path+".qos", "needs a vlan")
	}
	switch {
	case pool.VLAN != 0:
		p.oneOf(path+".vlanProtocol", pool.VLANProtocol, Protocol8021Q, Protocol8021AD)
	case pool.VLANProtocol != "":
		p.add(path+".vlanProtocol", "needs a vlan")
	}
	least, most := 0, 0
	if pool.MinTxRate != nil {
		least = *pool.MinTxRate
		p.between(path+".minTxRate", least, 0, 1<<31-1)
	}
	if pool.MaxTxRate != nil {
		most = *pool.MaxTxRate
		p.between(path+".maxTxRate", most, 0, 1<<31-1)
	}
	if most != 0 && least > most {
		p.add(path+".minTxRate", "%d is more than maxTxRate, %d", least, most)
	}
	if pool.LinkState != "" {
		p.oneOf(path+".linkState", pool.LinkState, "auto", "enable", "disable")
	}
	p.mtu(path+".mtu", pool.MTU)
	if pool.MTU != 0 && pool.Driver == "vfio-pci" {
		p.add(path+".mtu", "a VF on vfio-pci has no interface on the host: the VM sets it")
	}
	if !strings.Contains(pool.ResourceName, "/") || len(validation.IsQualifiedName(pool.ResourceName)) > 0 {
		p.add(path+".resourceName", "%q: want DOMAIN/NAME", pool.ResourceName)
	}
}

// references looks at what an interface says of others.
func (p *problems) references(path string, spec *HostNetworkSpec, at int) {
	this := &spec.Interfaces[at]
	if this.Bond != nil {
		for i, port := range this.Bond.Ports {
			p.bondPort(fmt.Sprintf("%s.bond.ports[%d]", path, i), spec, at, port)
		}
	}
	if shim := this.HostShim; shim != nil {
		onItself := shim.Parent == this.Name
		onVLAN := slices.ContainsFunc(this.VLANs, func(v VLAN) bool { return v.Name == shim.Parent })
		switch {
		case !onItself && !onVLAN:
			p.add(path+".hostShim.parent", "%q: want the interface, or one of its vlans", shim.Parent)
		case onItself && this.Bridge != nil:
			p.add(path+".hostShim.parent", "a port of a bridge cannot be the parent of a macvlan interface: give the address to the bridge, or use a VLAN")
		}
	}
}

func (p *problems) bondPort(path string, spec *HostNetworkSpec, at int, name string) {
	index := slices.IndexFunc(spec.Interfaces, func(i Interface) bool { return i.Name == name })
	if index < 0 {
		p.add(path, "%q: no interface of this policy has that name", name)
		return
	}
	port := &spec.Interfaces[index]
	switch {
	case port.Bond != nil:
		p.add(path, "%q is a bond itself", name)
	case port.Bridge != nil || len(port.VLANs) > 0 || port.HostShim != nil:
		p.add(path, "%q is in a bond: what is built on it has to be built on the bond", name)
	case port.MTU != 0 && port.MTU != spec.Interfaces[at].MTU:
		p.add(path, "%q has the MTU of its bond: write mtu there", name)
	}
	for i := range at {
		if bond := spec.Interfaces[i].Bond; bond != nil && slices.Contains(bond.Ports, name) {
			p.add(path, "%q is a port of %s already", name, bond.Name)
		}
	}
}

// attachments looks at what VMs are offered.
func (p *problems) attachments(spec *HostNetworkSpec) {
	seen := make(map[string]bool)
	for i := range spec.Attachments {
		a := &spec.Attachments[i]
		path := fmt.Sprintf("spec.attachments[%d]", i)
		if len(validation.IsDNS1123Subdomain(a.Name)) > 0 {
			p.add(path+".name", "%q: want a name of small letters, digits, dashes and dots", a.Name)
		}
		if len(validation.IsDNS1123Label(a.Namespace)) > 0 {
			p.add(path+".namespace", "%q: want a name of small letters, digits and dashes", a.Namespace)
		}
		if key := a.Namespace + "/" + a.Name; seen[key] {
			p.add(path+".name", "%s is there already", key)
		} else {
			seen[key] = true
		}
		p.mtu(path+".mtu", a.MTU)
		p.attachment(path, spec, a)
		if a.IPAM != nil {
			p.ipam(path+".ipam", a.IPAM)
		}
	}
}

func (p *problems) attachment(path string, spec *HostNetworkSpec, a *Attachment) {
	p.between(path+".vlan", a.VLAN, 0, 4094)
	p.between(path+".capacity", a.Capacity, 0, 10000)
	if a.Mode != "" && a.Type != AttachMacvlan && a.Type != AttachMacvtap {
		p.add(path+".mode", "is of macvlan and macvtap only")
	}
	switch a.Type {
	case AttachMacvlan, AttachMacvtap:
		p.oneOf(path+".mode", a.Mode, "bridge", "vepa", "private", "passthru")
		p.parent(path, spec, a)
		if a.VLAN != 0 {
			p.add(path+".vlan", "is for bridge and sriov: of %s, make a VLAN the parent", a.Type)
		}
	case AttachBridge:
		if !slices.ContainsFunc(spec.Interfaces, func(i Interface) bool { return i.Bridge != nil && i.Bridge.Name == a.Parent }) {
			p.add(path+".parent", "%q: no bridge of this policy has that name", a.Parent)
		}
	case AttachSRIOV:
		if !slices.ContainsFunc(spec.Interfaces, func(i Interface) bool {
			return i.SRIOV != nil && slices.ContainsFunc(i.SRIOV.Pools, func(pool Pool) bool { return pool.Name == a.Pool })
		}) {
			p.add(path+".pool", "%q: no pool of this policy has that name", a.Pool)
		}
	default:
		p.oneOf(path+".type", a.Type, AttachMacvlan, AttachMacvtap, AttachBridge, AttachSRIOV)
	}
}

// parent finds what a macvlan or macvtap lies on, and whether the kernel
// lets it lie there.
func (p *problems) parent(path string, spec *HostNetworkSpec, a *Attachment) {
	most, found := 0, false
	for i := range spec.Interfaces {
		of := &spec.Interfaces[i]
		if of.Name == a.Parent {
			most, found = of.MTU, true
			if of.Bridge != nil {
				p.add(path+".parent", "%s is a port of the bridge %s, and so cannot carry %s interfaces", a.Parent, of.Bridge.Name, a.Type)
			}
			if of.HostShim != nil && of.HostShim.Parent == a.Parent && a.Mode == "passthru" {
				p.add(path+".mode", "passthru takes %s for one VM alone, and %s is on it", a.Parent, of.HostShim.Name)
			}
		}
		for _, vlan := range of.VLANs {
			if vlan.Name == a.Parent {
				most, found = vlan.MTU, true
			}
		}
	}
	switch {
	case !found:
		p.add(path+".parent", "%q: no interface or VLAN of this policy has that name", a.Parent)
	case most != 0 && a.MTU > most:
		p.add(path+".mtu", "%d is more than that of %s, %d", a.MTU, a.Parent, most)
	}
	if a.Mode == "passthru" {
		for i := range spec.Attachments {
			if other := &spec.Attachments[i]; other != a && other.Parent == a.Parent && (other.Type == AttachMacvlan || other.Type == AttachMacvtap) {
				p.add(path+".mode", "passthru takes %s for one VM alone, and %s/%s has it as its parent", a.Parent, other.Namespace, other.Name)
				return
			}
		}
	}
}

func (p *problems) ipam(path string, i *IPAM) {
	p.oneOf(path+".type", i.Type, "whereabouts", "host-local", "dhcp", "static")
	inside, err := parsePrefix(i.Range)
	needsRange := i.Type == "whereabouts" || i.Type == "host-local"
	switch {
	case needsRange && err != nil:
		p.add(path+".range", "%q: want a network, such as 10.7.0.0/24", i.Range)
	case !needsRange && i.Range != "":
		p.add(path+".range", "is of whereabouts and host-local only")
	}
	for _, field := range []struct{ name, value string }{{"rangeStart", i.RangeStart}, {"rangeEnd", i.RangeEnd}, {"gateway", i.Gateway}} {
		if field.value == "" {
			continue
		}
		address, err := netip.ParseAddr(field.value)
		switch {
		case err != nil || address.Is4In6() || address.Zone() != "":
			p.add(path+"."+field.name, "%q: want an address", field.value)
		case inside.IsValid() && field.name != "gateway" && !inside.Contains(address):
			p.add(path+"."+field.name, "%s is not in %s", address, i.Range)
		}
	}
	for _, list := range []struct {
		name     string
		prefixes []string
	}{{"exclude", i.Exclude}, {"addresses", i.Addresses}, {"routes", i.Routes}} {
		p.atMost(path+"."+list.name, len(list.prefixes), maxPools)
		for n, text := range list.prefixes {
			if _, err := parsePrefix(text); err != nil {
				p.add(fmt.Sprintf("%s.%s[%d]", path, list.name, n), "%q: want it with prefix length, such as 10.7.0.0/24", text)
			}
		}
	}
	if i.Type == "static" && len(i.Addresses) == 0 {
		p.add(path+".addresses", "static needs at least one")
	}
}
