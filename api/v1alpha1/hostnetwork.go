package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// What a HostNetwork document starts with.
const (
	APIVersion      = "virtnode.io/v1alpha1"
	KindHostNetwork = "HostNetwork"
)

// HostNetwork is what the links and virtual functions of a node shall be.
type HostNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              HostNetworkSpec `json:"spec" doc:"What is wanted."`
}

// HostNetworkSpec is the wanted state.
type HostNetworkSpec struct {
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty" doc:"Which nodes this is for, by their labels. Without it: every node."`
	Priority     int                   `json:"priority,omitempty" doc:"Where two policies of one node ask for different things, the higher priority is followed. Equal priorities are a conflict, and both are refused."`
	Disruption   DisruptionPolicy      `json:"disruption,omitempty" doc:"Whether steps may interrupt traffic or recreate virtual functions: None (the default) or Allow."`
	Probes       Probes                `json:"probes,omitzero" doc:"How it is found out, after a change, that the node can still be reached."`
	Interfaces   []Interface           `json:"interfaces,omitempty" doc:"The network cards and bonds, and what is built on them."`
	Attachments  []Attachment          `json:"attachments,omitempty" doc:"What Multus shall offer to VMs. It is rendered from this, and changes nothing on the host."`
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
	Timeout Duration `json:"timeout,omitempty" doc:"How long the targets have to answer before everything is undone. Default 30s."`
	Targets []string `json:"targets,omitempty" doc:"What must answer: gateway (every default gateway), apiserver, or tcp://HOST:PORT. Default: gateway. A target that does not answer before the change either is refused."`
}

// Interface is a network card, or a bond of some, and what is built on it.
type Interface struct {
	Name     string    `json:"name" doc:"Becomes an alternative name of the link, the same on every node, so that one definition fits all."`
	Match    *Match    `json:"match,omitempty" doc:"Which network card: all that is said must hold, and exactly one card may match. Either this or bond."`
	Bond     *Bond     `json:"bond,omitempty" doc:"Makes a bond of other interfaces."`
	MTU      int       `json:"mtu,omitempty" doc:"Largest packet in bytes, 68 to 65535. 0: left as it is."`
	SRIOV    *SRIOV    `json:"sriov,omitempty" doc:"Virtual functions of the card."`
	VLANs    []VLAN    `json:"vlans,omitempty" doc:"802.1Q interfaces on top."`
	Bridge   *Bridge   `json:"bridge,omitempty" doc:"A bridge of which this interface is a port."`
	HostShim *HostShim `json:"hostShim,omitempty" doc:"A macvlan interface through which the host itself reaches the macvlan interfaces of VMs, which it cannot through their parent."`
}

// Match identifies a network card. What is empty is not asked.
type Match struct {
	PCIAddress   string `json:"pciAddress,omitempty" doc:"Such as 0000:01:00.0."`
	PermanentMAC string `json:"permanentMAC,omitempty" doc:"The address that the card was made with, such as 52:54:00:12:34:56."`
	Driver       string `json:"driver,omitempty" doc:"The kernel's driver, such as ixgbe."`
	Vendor       string `json:"vendor,omitempty" doc:"PCI vendor, four hexadecimal digits, such as 8086."`
	Device       string `json:"device,omitempty" doc:"PCI device, four hexadecimal digits. Needs a vendor."`
	Name         string `json:"name,omitempty" doc:"The kernel's name or an alternative name. Kernel names may change at a reboot or with a driver."`
}

// Bond joins interfaces.
type Bond struct {
	Name               string   `json:"name" doc:"The kernel's name of the bond."`
	Ports              []string `json:"ports" doc:"The interfaces in it, by their names in this policy."`
	Mode               string   `json:"mode,omitempty" doc:"balance-rr, active-backup (the default), balance-xor, broadcast, 802.3ad, balance-tlb or balance-alb."`
	MonitorInterval    int      `json:"monitorInterval,omitempty" doc:"Milliseconds between two looks at the ports' links (miimon). Default 100."`
	LACPRate           string   `json:"lacpRate,omitempty" doc:"slow or fast, of 802.3ad only. Default slow."`
	TransmitHashPolicy string   `json:"transmitHashPolicy,omitempty" doc:"layer2 (the default), layer3+4, layer2+3, encap2+3, encap3+4 or vlan+srcmac."`
}

// SRIOV configures the virtual functions (VFs) of a card.
type SRIOV struct {
	NumVFs int    `json:"numVFs" doc:"How many VFs the card has. Growth destroys those that exist: make the most at once, and divide them into pools, which change without recreating any."`
	Pools  []Pool `json:"pools,omitempty" doc:"Disjoint sets of VFs. A VF of no pool is left as the driver made it."`
}

// Pool is a set of virtual functions that are alike.
type Pool struct {
	Name         string `json:"name" doc:"Of small letters, digits and dashes. Part of the resource name."`
	VFs          string `json:"vfs" doc:"Which, by index: 0-3, or 0-3,6."`
	Driver       string `json:"driver,omitempty" doc:"vfio-pci for VMs, or another driver. Empty: the one that the kernel picks by itself."`
	VLAN         int    `json:"vlan,omitempty" doc:"Tag that the card adds and removes, 1 to 4094. 0: none."`
	QoS          int    `json:"qos,omitempty" doc:"802.1p priority in that tag, 0 to 7. Needs a vlan."`
	VLANProtocol string `json:"vlanProtocol,omitempty" doc:"802.1Q (the default) or 802.1ad."`
	MinTxRate    *int   `json:"minTxRate,omitempty" doc:"Guaranteed rate in Mbit/s; not every card can. Without it: left as it is."`
	MaxTxRate    *int   `json:"maxTxRate,omitempty" doc:"Limit in Mbit/s; 0 is no limit. Without it: left as it is."`
	SpoofCheck   *bool  `json:"spoofCheck,omitempty" doc:"Whether the card drops frames from other MAC addresses. Without it: left as it is."`
	Trust        *bool  `json:"trust,omitempty" doc:"Whether the VM may change its MAC address and become promiscuous. Without it: left as it is."`
	LinkState    string `json:"linkState,omitempty" doc:"auto, enable or disable. Without it: left as it is; not every card can."`
	MTU          int    `json:"mtu,omitempty" doc:"Of the VFs' own interfaces, where a network driver has them. 0: left as it is."`
	DevicePlugin bool   `json:"devicePlugin,omitempty" doc:"Whether the agent itself offers the pool to the kubelet."`
	ResourceName string `json:"resourceName,omitempty" doc:"What pods ask for. Default: virtnode.io/NAME."`
}

// VLAN is an 802.1Q interface.
type VLAN struct {
	ID       int    `json:"id" doc:"Tag, 1 to 4094."`
	Name     string `json:"name" doc:"The kernel's name of it, at most 15 letters."`
	Protocol string `json:"protocol,omitempty" doc:"802.1Q (the default) or 802.1ad."`
	MTU      int    `json:"mtu,omitempty" doc:"At most that of the interface below. 0: the same as below."`
}

// Bridge is a Linux bridge with the interface as its port.
type Bridge struct {
	Name          string   `json:"name" doc:"The kernel's name of it."`
	VLANFiltering bool     `json:"vlanFiltering,omitempty" doc:"Whether the bridge keeps VLANs apart."`
	VLANs         []string `json:"vlans,omitempty" doc:"Tags that pass through the interface: 10, or 10-20. Needs vlanFiltering."`
}

// HostShim is the host's own macvlan interface.
type HostShim struct {
	Name      string   `json:"name" doc:"The kernel's name of it."`
	Parent    string   `json:"parent,omitempty" doc:"The interface or VLAN that it lies on. Default: the interface."`
	Addresses []string `json:"addresses,omitempty" doc:"Of the host, with prefix length: 10.7.0.2/32."`
	Routes    []string `json:"routes,omitempty" doc:"Networks that are reached through it: 10.7.0.0/24."`
}

// Attachment is a network that VMs can be attached to.
type Attachment struct {
	Name      string `json:"name" doc:"Of the NetworkAttachmentDefinition."`
	Namespace string `json:"namespace,omitempty" doc:"Of the NetworkAttachmentDefinition. Default: default."`
	Type      string `json:"type" doc:"macvlan, macvtap, bridge or sriov."`
	Parent    string `json:"parent,omitempty" doc:"Of macvlan and macvtap: an interface or a VLAN. Of bridge: a bridge."`
	Pool      string `json:"pool,omitempty" doc:"Of sriov: the pool."`
	Mode      string `json:"mode,omitempty" doc:"Of macvlan and macvtap: bridge (the default), vepa, private or passthru."`
	MTU       int    `json:"mtu,omitempty" doc:"At most the parent's. 0: the parent's."`
	VLAN      int    `json:"vlan,omitempty" doc:"Of bridge and sriov: tag of the VM's traffic, 1 to 4094. 0: none."`
	Capacity  int    `json:"capacity,omitempty" doc:"Of macvtap: how many VMs of a node may have one. Default 100."`
	IPAM      *IPAM  `json:"ipam,omitempty" doc:"Who gives addresses out. Without it nobody does, which is right for VMs on a bridge, macvtap or vfio-pci."`
}

// IPAM says how addresses are given out.
type IPAM struct {
	Type       string   `json:"type" doc:"whereabouts, host-local, dhcp or static."`
	Range      string   `json:"range,omitempty" doc:"Of whereabouts and host-local: the network, such as 10.7.0.0/24."`
	RangeStart string   `json:"rangeStart,omitempty" doc:"First address to give out."`
	RangeEnd   string   `json:"rangeEnd,omitempty" doc:"Last address to give out."`
	Exclude    []string `json:"exclude,omitempty" doc:"Of whereabouts: networks in the range that are not given out."`
	Gateway    string   `json:"gateway,omitempty" doc:"Gateway of the attachment."`
	Addresses  []string `json:"addresses,omitempty" doc:"Of static: addresses with prefix length."`
	Routes     []string `json:"routes,omitempty" doc:"Networks behind the gateway."`
}
