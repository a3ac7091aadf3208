package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// What a HostNetwork document starts with.
const (
	APIVersion      = "virtnode.io/v1alpha1"
	KindHostNetwork = "HostNetwork"
)

// HostNetwork is what the links and virtual functions of a node shall be.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hn,categories=virtnode
// +kubebuilder:subresource:status
type HostNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	// What is wanted.
	Spec HostNetworkSpec `json:"spec"`
}

// HostNetworkList is a list of them.
//
// +kubebuilder:object:root=true
type HostNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []HostNetwork `json:"items"`
}

// HostNetworkSpec is the wanted state.
type HostNetworkSpec struct {
	// Which nodes this is for, by their labels. Without it: every node.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
	// Where two policies of one node ask for different things, the higher priority is followed. Equal priorities are
	// a conflict, and both are refused.
	Priority int `json:"priority,omitempty"`
	// Whether steps may interrupt traffic or recreate virtual functions: None (the default) or Allow.
	Disruption DisruptionPolicy `json:"disruption,omitempty"`
	// How it is found out, after a change, that the node can still be reached.
	Probes Probes `json:"probes,omitzero"`
	// The network cards and bonds, and what is built on them.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// What Multus shall offer to VMs. It is rendered from this, and changes nothing on the host.
	Attachments []Attachment `json:"attachments,omitempty"`
}

// DisruptionPolicy says whether running traffic may be harmed.
type DisruptionPolicy string

// The disruption policies.
const (
	DisruptionNone  DisruptionPolicy = "None"
	DisruptionAllow DisruptionPolicy = "Allow"
)

// Probes are what has to answer after a change, or the change is undone.
type Probes struct {
	// How long the targets have to answer before everything is undone. Default 30s.
	Timeout Duration `json:"timeout,omitempty"`
	// What must answer: gateway (every default gateway), apiserver, or tcp://HOST:PORT. Default: gateway. A target
	// that does not answer before the change either is refused.
	Targets []string `json:"targets,omitempty"`
}

// Interface is a network card, or a bond of some, and what is built on it.
type Interface struct {
	// Becomes an alternative name of the link, the same on every node, so that one definition fits all.
	Name string `json:"name"`
	// Which network card: all that is said must hold, and exactly one card may match. Either this or bond.
	Match *Match `json:"match,omitempty"`
	// Makes a bond of other interfaces.
	Bond *Bond `json:"bond,omitempty"`
	// Largest packet in bytes, 68 to 65535. 0: left as it is.
	MTU int `json:"mtu,omitempty"`
	// Virtual functions of the card.
	SRIOV *SRIOV `json:"sriov,omitempty"`
	// 802.1Q interfaces on top.
	VLANs []VLAN `json:"vlans,omitempty"`
	// A bridge of which this interface is a port.
	Bridge *Bridge `json:"bridge,omitempty"`
	// A macvlan interface through which the host itself reaches the macvlan interfaces of VMs, which it cannot
	// through their parent.
	HostShim *HostShim `json:"hostShim,omitempty"`
}

// Match identifies a network card. What is empty is not asked.
type Match struct {
	// Such as 0000:01:00.0.
	PCIAddress string `json:"pciAddress,omitempty"`
	// The address that the card was made with, such as 52:54:00:12:34:56.
	PermanentMAC string `json:"permanentMAC,omitempty"`
	// The kernel's driver, such as ixgbe.
	Driver string `json:"driver,omitempty"`
	// PCI vendor, four hexadecimal digits, such as 8086.
	Vendor string `json:"vendor,omitempty"`
	// PCI device, four hexadecimal digits. Needs a vendor.
	Device string `json:"device,omitempty"`
	// The kernel's name or an alternative name. Kernel names may change at a reboot or with a driver.
	Name string `json:"name,omitempty"`
}

// Bond joins interfaces.
type Bond struct {
	// The kernel's name of the bond.
	Name string `json:"name"`
	// The interfaces in it, by their names in this policy.
	Ports []string `json:"ports"`
	// balance-rr, active-backup (the default), balance-xor, broadcast, 802.3ad, balance-tlb or balance-alb.
	Mode string `json:"mode,omitempty"`
	// Milliseconds between two looks at the ports' links (miimon). Default 100.
	MonitorInterval int `json:"monitorInterval,omitempty"`
	// slow or fast, of 802.3ad only. Default slow.
	LACPRate string `json:"lacpRate,omitempty"`
	// layer2 (the default), layer3+4, layer2+3, encap2+3, encap3+4 or vlan+srcmac.
	TransmitHashPolicy string `json:"transmitHashPolicy,omitempty"`
}

// SRIOV configures the virtual functions (VFs) of a card.
type SRIOV struct {
	// How many VFs the card has. Growth destroys those that exist: make the most at once, and divide them into
	// pools, which change without recreating any.
	NumVFs int `json:"numVFs"`
	// Disjoint sets of VFs. A VF of no pool is left as the driver made it.
	Pools []Pool `json:"pools,omitempty"`
}

// Pool is a set of virtual functions that are alike.
type Pool struct {
	// Of small letters, digits and dashes. Part of the resource name.
	Name string `json:"name"`
	// Which, by index: 0-3, or 0-3,6.
	VFs string `json:"vfs"`
	// vfio-pci for VMs, or another driver. Empty: the one that the kernel picks by itself.
	Driver string `json:"driver,omitempty"`
	// Tag that the card adds and removes, 1 to 4094. 0: none.
	VLAN int `json:"vlan,omitempty"`
	// 802.1p priority in that tag, 0 to 7. Needs a vlan.
	QoS int `json:"qos,omitempty"`
	// 802.1Q (the default) or 802.1ad.
	VLANProtocol string `json:"vlanProtocol,omitempty"`
	// Guaranteed rate in Mbit/s; not every card can. Without it: left as it is.
	MinTxRate *int `json:"minTxRate,omitempty"`
	// Limit in Mbit/s; 0 is no limit. Without it: left as it is.
	MaxTxRate *int `json:"maxTxRate,omitempty"`
	// Whether the card drops frames from other MAC addresses. Without it: left as it is.
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// Whether the VM may change its MAC address and become promiscuous. Without it: left as it is.
	Trust *bool `json:"trust,omitempty"`
	// auto, enable or disable. Without it: left as it is; not every card can.
	LinkState string `json:"linkState,omitempty"`
	// Of the VFs' own interfaces, where a network driver has them. 0: left as it is.
	MTU int `json:"mtu,omitempty"`
	// Whether the agent itself offers the pool to the kubelet.
	DevicePlugin bool `json:"devicePlugin,omitempty"`
	// What pods ask for. Default: virtnode.io/NAME.
	ResourceName string `json:"resourceName,omitempty"`
}

// VLAN is an 802.1Q interface.
type VLAN struct {
	// Tag, 1 to 4094.
	ID int `json:"id"`
	// The kernel's name of it, at most 15 letters.
	Name string `json:"name"`
	// 802.1Q (the default) or 802.1ad.
	Protocol string `json:"protocol,omitempty"`
	// At most that of the interface below. 0: the same as below.
	MTU int `json:"mtu,omitempty"`
}

// Bridge is a Linux bridge with the interface as its port.
type Bridge struct {
	// The kernel's name of it.
	Name string `json:"name"`
	// Whether the bridge keeps VLANs apart.
	VLANFiltering bool `json:"vlanFiltering,omitempty"`
	// Tags that pass through the interface: 10, or 10-20. Needs vlanFiltering.
	VLANs []string `json:"vlans,omitempty"`
}

// HostShim is the host's own macvlan interface.
type HostShim struct {
	// The kernel's name of it.
	Name string `json:"name"`
	// The interface or VLAN that it lies on. Default: the interface.
	Parent string `json:"parent,omitempty"`
	// Of the host, with prefix length: 10.7.0.2/32.
	Addresses []string `json:"addresses,omitempty"`
	// Networks that are reached through it: 10.7.0.0/24.
	Routes []string `json:"routes,omitempty"`
}

// Attachment is a network that VMs can be attached to.
type Attachment struct {
	// Of the NetworkAttachmentDefinition.
	Name string `json:"name"`
	// Of the NetworkAttachmentDefinition. Default: default.
	Namespace string `json:"namespace,omitempty"`
	// macvlan, macvtap, bridge or sriov.
	Type string `json:"type"`
	// Of macvlan and macvtap: an interface or a VLAN. Of bridge: a bridge.
	Parent string `json:"parent,omitempty"`
	// Of sriov: the pool.
	Pool string `json:"pool,omitempty"`
	// Of macvlan and macvtap: bridge (the default), vepa, private or passthru.
	Mode string `json:"mode,omitempty"`
	// At most the parent's. 0: the parent's.
	MTU int `json:"mtu,omitempty"`
	// Of bridge and sriov: tag of the VM's traffic, 1 to 4094. 0: none.
	VLAN int `json:"vlan,omitempty"`
	// Of macvtap: how many VMs of a node may have one. Default 100.
	Capacity int `json:"capacity,omitempty"`
	// Who gives addresses out. Without it nobody does, which is right for VMs on a bridge, macvtap or vfio-pci.
	IPAM *IPAM `json:"ipam,omitempty"`
}

// IPAM says how addresses are given out.
type IPAM struct {
	// whereabouts, host-local, dhcp or static.
	Type string `json:"type"`
	// Of whereabouts and host-local: the network, such as 10.7.0.0/24.
	Range string `json:"range,omitempty"`
	// First address to give out.
	RangeStart string `json:"rangeStart,omitempty"`
	// Last address to give out.
	RangeEnd string `json:"rangeEnd,omitempty"`
	// Of whereabouts: networks in the range that are not given out.
	Exclude []string `json:"exclude,omitempty"`
	// Gateway of the attachment.
	Gateway string `json:"gateway,omitempty"`
	// Of static: addresses with prefix length.
	Addresses []string `json:"addresses,omitempty"`
	// Networks behind the gateway.
	Routes []string `json:"routes,omitempty"`
}
