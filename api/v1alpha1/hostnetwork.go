package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What a HostNetwork document starts with.
const (
	APIVersion      = "virtnode.io/v1alpha1"
	KindHostNetwork = "HostNetwork"
)

// RestoreFinalizer keeps a HostNetwork until its nodes are as they were before.
const RestoreFinalizer = "virtnode.io/restore"

// IntOrString is a number, or a percentage.
type IntOrString = intstr.IntOrString

// HostNetwork is what the links and virtual functions of a node shall be.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=hn,categories=virtnode
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes.selected`
// +kubebuilder:printcolumn:name="Converged",type=integer,JSONPath=`.status.nodes.converged`
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.nodes.waiting`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.nodes.failed`
// +kubebuilder:printcolumn:name="Drifted",type=integer,JSONPath=`.status.nodes.drifted`,priority=1
// +kubebuilder:printcolumn:name="Disruption",type=string,JSONPath=`.spec.disruption`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HostNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	// What is wanted.
	Spec HostNetworkSpec `json:"spec"`
	// What became of it in a cluster, as the controller sees it. A file has none.
	// +optional
	Status HostNetworkStatus `json:"status,omitzero"`
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
	// +kubebuilder:validation:Enum=None;Allow
	Disruption DisruptionPolicy `json:"disruption,omitempty"`
	// Plans that may disrupt although disruption is None, by the hashes that the nodes report. Of a cluster only.
	// +listType=set
	// +kubebuilder:validation:MaxItems=1024
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{12}$`
	ApprovedPlans []string `json:"approvedPlans,omitempty"`
	// How many nodes may be disrupted at the same time: a number, or a percentage of those that the policy selects, rounded
	// down, but at least one. A node whose change was undone counts, until the policy is changed. Default 1; 0 and 0% pause.
	// Of a cluster only.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 10000 : self.matches('^(100|[1-9]?[0-9])%$')",message="want 0 to 10000, or 0% to 100%"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// How it is found out, after a change, that the node can still be reached.
	Probes Probes `json:"probes,omitzero"`
	// The network cards and bonds, and what is built on them.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	Interfaces []Interface `json:"interfaces,omitempty"`
	// What Multus shall offer to VMs. It is rendered from this, and changes nothing on the host.
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
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
	// How long the targets have to answer before everything is undone, 1s to 10m. Default 30s.
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="want 1s to 10m"
	Timeout Duration `json:"timeout,omitempty"`
	// What must answer: gateway (every default gateway), apiserver, or tcp://HOST:PORT. Default: gateway. A target
	// that does not answer before the change either is refused.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^(gateway|apiserver|tcp://.+:[0-9]+)$`
	Targets []string `json:"targets,omitempty"`
}

// Interface is a network card, or a bond of some, and what is built on it.
//
// +kubebuilder:validation:XValidation:rule="has(self.match) != has(self.bond)",message="want either match, for a network card, or bond"
// +kubebuilder:validation:XValidation:rule="!has(self.bond) || !has(self.sriov)",message="a bond has no virtual functions: write sriov at its ports"
// +kubebuilder:validation:XValidation:rule="has(self.bond) == has(oldSelf.bond)",message="a network card does not become a bond, nor a bond a network card: choose another name"
type Interface struct {
	// Becomes an alternative name of the link, the same on every node, so that one definition fits all.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=127
	Name string `json:"name"`
	// Which network card: all that is said must hold, and exactly one card may match. Either this or bond.
	Match *Match `json:"match,omitempty"`
	// Makes a bond of other interfaces.
	Bond *Bond `json:"bond,omitempty"`
	// Largest packet in bytes, 68 to 65535. 0: left as it is.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 68",message="want 68 to 65535, or 0"
	MTU int `json:"mtu,omitempty"`
	// Virtual functions of the card.
	SRIOV *SRIOV `json:"sriov,omitempty"`
	// 802.1Q interfaces on top.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=256
	VLANs []VLAN `json:"vlans,omitempty"`
	// A bridge of which this interface is a port.
	Bridge *Bridge `json:"bridge,omitempty"`
	// A macvlan interface through which the host itself reaches the macvlan interfaces of VMs, which it cannot
	// through their parent.
	HostShim *HostShim `json:"hostShim,omitempty"`
}

// Match identifies a network card. What is left out is not asked.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(self.device) || has(self.vendor)",message="a device says nothing without a vendor"
type Match struct {
	// Such as 0000:01:00.0.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`
	PCIAddress string `json:"pciAddress,omitempty"`
	// The address that the card was made with, such as 52:54:00:12:34:56.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{2}(:[0-9a-f]{2})+$`
	// +kubebuilder:validation:MaxLength=59
	PermanentMAC string `json:"permanentMAC,omitempty"`
	// The kernel's driver, such as ixgbe.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]{1,63}$`
	Driver string `json:"driver,omitempty"`
	// PCI vendor, four hexadecimal digits, such as 8086.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}$`
	Vendor string `json:"vendor,omitempty"`
	// PCI device, four hexadecimal digits. Needs a vendor.
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{4}$`
	Device string `json:"device,omitempty"`
	// The kernel's name or an alternative name. Kernel names may change at a reboot or with a driver.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=127
	Name string `json:"name,omitempty"`
}

// Bond joins interfaces.
//
// +kubebuilder:validation:XValidation:rule="!has(self.lacpRate) || (has(self.mode) && self.mode == '802.3ad')",message="lacpRate is of mode 802.3ad only"
type Bond struct {
	// The kernel's name of the bond.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// The interfaces in it, by their names in this policy.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=127
	Ports []string `json:"ports"`
	// balance-rr, active-backup (the default), balance-xor, broadcast, 802.3ad, balance-tlb or balance-alb.
	// +kubebuilder:validation:Enum=balance-rr;active-backup;balance-xor;broadcast;"802.3ad";balance-tlb;balance-alb
	Mode string `json:"mode,omitempty"`
	// Milliseconds between two looks at the ports' links (miimon). Default 100.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=60000
	MonitorInterval int `json:"monitorInterval,omitempty"`
	// slow or fast, of 802.3ad only. Default slow.
	// +kubebuilder:validation:Enum=slow;fast
	LACPRate string `json:"lacpRate,omitempty"`
	// layer2 (the default), layer3+4, layer2+3, encap2+3, encap3+4 or vlan+srcmac.
	// +kubebuilder:validation:Enum=layer2;"layer3+4";"layer2+3";"encap2+3";"encap3+4";"vlan+srcmac"
	TransmitHashPolicy string `json:"transmitHashPolicy,omitempty"`
}

// SRIOV configures the virtual functions (VFs) of a card.
type SRIOV struct {
	// How many VFs the card has. Growth destroys those that exist: make the most at once, and divide them into
	// pools, which change without recreating any.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	NumVFs int `json:"numVFs"`
	// Disjoint sets of VFs. A VF of no pool is left as the driver made it.
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Pools []Pool `json:"pools,omitempty"`
}

// Pool is a set of virtual functions that are alike.
//
// +kubebuilder:validation:XValidation:rule="!has(self.qos) || self.qos == 0 || (has(self.vlan) && self.vlan != 0)",message="qos needs a vlan"
// +kubebuilder:validation:XValidation:rule="!has(self.vlanProtocol) || (has(self.vlan) && self.vlan != 0)",message="vlanProtocol needs a vlan"
// +kubebuilder:validation:XValidation:rule="!has(self.minTxRate) || !has(self.maxTxRate) || self.maxTxRate == 0 || self.minTxRate <= self.maxTxRate",message="minTxRate is more than maxTxRate"
// +kubebuilder:validation:XValidation:rule="!has(self.mtu) || self.mtu == 0 || !has(self.driver) || self.driver != 'vfio-pci'",message="a VF on vfio-pci has no interface on the host: the VM sets its mtu"
type Pool struct {
	// Of small letters, digits and dashes. Part of the resource name.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Which, by index: 0-3, or 0-3,6.
	// +kubebuilder:validation:Pattern=`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`
	// +kubebuilder:validation:MaxLength=1024
	VFs string `json:"vfs"`
	// vfio-pci for VMs, or another driver. Empty: the one that the kernel picks by itself.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]{1,63}$`
	Driver string `json:"driver,omitempty"`
	// Tag that the card adds and removes, 1 to 4094. 0: none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VLAN int `json:"vlan,omitempty"`
	// 802.1p priority in that tag, 0 to 7. Needs a vlan.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=7
	QoS int `json:"qos,omitempty"`
	// 802.1Q (the default) or 802.1ad.
	// +kubebuilder:validation:Enum="802.1Q";"802.1ad"
	VLANProtocol string `json:"vlanProtocol,omitempty"`
	// Guaranteed rate in Mbit/s; not every card can. Without it: left as it is.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	MinTxRate *int `json:"minTxRate,omitempty"`
	// Limit in Mbit/s; 0 is no limit. Without it: left as it is.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	MaxTxRate *int `json:"maxTxRate,omitempty"`
	// Whether the card drops frames from other MAC addresses. Without it: left as it is.
	SpoofCheck *bool `json:"spoofCheck,omitempty"`
	// Whether the VM may change its MAC address and become promiscuous. Without it: left as it is.
	Trust *bool `json:"trust,omitempty"`
	// auto, enable or disable. Without it: left as it is; not every card can.
	// +kubebuilder:validation:Enum=auto;enable;disable
	LinkState string `json:"linkState,omitempty"`
	// Of the VFs' own interfaces, where a network driver has them. 0: left as it is.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 68",message="want 68 to 65535, or 0"
	MTU int `json:"mtu,omitempty"`
	// Whether the agent itself offers the pool to the kubelet.
	DevicePlugin bool `json:"devicePlugin,omitempty"`
	// What pods ask for. Default: virtnode.io/NAME.
	// +kubebuilder:validation:Pattern=`^[^/]+/[^/]+$`
	// +kubebuilder:validation:MaxLength=317
	ResourceName string `json:"resourceName,omitempty"`
}

// VLAN is an 802.1Q interface.
type VLAN struct {
	// Tag, 1 to 4094.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4094
	ID int `json:"id"`
	// The kernel's name of it, at most 15 letters.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// 802.1Q (the default) or 802.1ad.
	// +kubebuilder:validation:Enum="802.1Q";"802.1ad"
	Protocol string `json:"protocol,omitempty"`
	// At most that of the interface below. 0: the same as below.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 68",message="want 68 to 65535, or 0"
	MTU int `json:"mtu,omitempty"`
}

// Bridge is a Linux bridge with the interface as its port.
//
// +kubebuilder:validation:XValidation:rule="!has(self.vlans) || size(self.vlans) == 0 || (has(self.vlanFiltering) && self.vlanFiltering)",message="vlans say nothing without vlanFiltering"
type Bridge struct {
	// The kernel's name of it.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// Whether the bridge keeps VLANs apart.
	VLANFiltering bool `json:"vlanFiltering,omitempty"`
	// Tags that pass through the interface: 10, or 10-20. Needs vlanFiltering.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Pattern=`^[0-9]+(-[0-9]+)?$`
	VLANs []string `json:"vlans,omitempty"`
}

// HostShim is the host's own macvlan interface.
type HostShim struct {
	// The kernel's name of it.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// The interface or VLAN that it lies on. Default: the interface.
	// +kubebuilder:validation:MaxLength=127
	Parent string `json:"parent,omitempty"`
	// Of the host, with prefix length: 10.7.0.2/32.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="want an address with its prefix length, such as 10.7.0.2/32"
	Addresses []string `json:"addresses,omitempty"`
	// Networks that are reached through it: 10.7.0.0/24.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked() && cidr(self).prefixLength() > 0",message="want a network, such as 10.7.0.0/24, without host bits"
	Routes []string `json:"routes,omitempty"`
}

// Attachment is a network that VMs can be attached to.
//
// +kubebuilder:validation:XValidation:rule="self.type == 'sriov' ? has(self.pool) : has(self.parent)",message="want the pool of sriov, or the parent of the others"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.type in ['macvlan', 'macvtap']",message="mode is of macvlan and macvtap only"
// +kubebuilder:validation:XValidation:rule="!has(self.vlan) || self.vlan == 0 || self.type in ['bridge', 'sriov']",message="vlan is for bridge and sriov: of the others, make a VLAN the parent"
type Attachment struct {
	// Of the NetworkAttachmentDefinition.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Of the NetworkAttachmentDefinition. Default: default.
	// +kubebuilder:default=default
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// macvlan, macvtap, bridge or sriov. It does not change: VMs that have the network would get another kind of it.
	// +kubebuilder:validation:Enum=macvlan;macvtap;bridge;sriov
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the type of an attachment does not change: make another, with a name of its own"
	Type string `json:"type"`
	// Of macvlan and macvtap: an interface or a VLAN. Of bridge: a bridge.
	// +kubebuilder:validation:MaxLength=127
	Parent string `json:"parent,omitempty"`
	// Of sriov: the pool.
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool,omitempty"`
	// Of macvlan and macvtap: bridge (the default), vepa, private or passthru.
	// +kubebuilder:validation:Enum=bridge;vepa;private;passthru
	Mode string `json:"mode,omitempty"`
	// At most the parent's. 0: the parent's.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == 0 || self >= 68",message="want 68 to 65535, or 0"
	MTU int `json:"mtu,omitempty"`
	// Of bridge and sriov: tag of the VM's traffic, 1 to 4094. 0: none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VLAN int `json:"vlan,omitempty"`
	// Of macvtap: how many VMs of a node may have one. Default 100.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Capacity int `json:"capacity,omitempty"`
	// Who gives addresses out. Without it nobody does, which is right for VMs on a bridge, macvtap or vfio-pci.
	IPAM *IPAM `json:"ipam,omitempty"`
}

// IPAM says how addresses are given out.
//
// +kubebuilder:validation:XValidation:rule="(self.type in ['whereabouts', 'host-local']) == has(self.range)",message="want a range for whereabouts and host-local, and for them only"
// +kubebuilder:validation:XValidation:rule="self.type != 'static' || (has(self.addresses) && size(self.addresses) > 0)",message="static needs at least one of addresses"
type IPAM struct {
	// whereabouts, host-local, dhcp or static.
	// +kubebuilder:validation:Enum=whereabouts;host-local;dhcp;static
	Type string `json:"type"`
	// Of whereabouts and host-local: the network, such as 10.7.0.0/24.
	// +kubebuilder:validation:MaxLength=49
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="want a network, such as 10.7.0.0/24"
	Range string `json:"range,omitempty"`
	// First address to give out.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="want an address"
	RangeStart string `json:"rangeStart,omitempty"`
	// Last address to give out.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="want an address"
	RangeEnd string `json:"rangeEnd,omitempty"`
	// Of whereabouts: networks in the range that are not given out.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="want it with prefix length, such as 10.7.0.0/24"
	Exclude []string `json:"exclude,omitempty"`
	// Gateway of the attachment.
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="want an address"
	Gateway string `json:"gateway,omitempty"`
	// Of static: addresses with prefix length.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="want it with prefix length, such as 10.7.0.0/24"
	Addresses []string `json:"addresses,omitempty"`
	// Networks behind the gateway.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=49
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="want it with prefix length, such as 10.7.0.0/24"
	Routes []string `json:"routes,omitempty"`
}
