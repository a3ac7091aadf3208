package nodestack

import "github.com/virtnode/nodeagent/pkg/kvmcheck"

// Checks lists every check of the stack, in the order of a report. The level
// is what a check means on a host that has a kubelet.
func Checks() []kvmcheck.Check {
	const (
		required    = kvmcheck.Required
		recommended = kvmcheck.Recommended
		optional    = kvmcheck.Optional
	)
	return []kvmcheck.Check{
		{Area: "kubelet", Name: "node", Level: optional, Asks: "Is this host a node of a cluster?", Reads: "/proc/*/comm, the kubelet's root directory", Reasons: []kvmcheck.Reason{NoKubelet, KubeletNotRunning}},
		{Area: "kubelet", Name: "mount-propagation", Level: required, Asks: "Do mounts below the kubelet's root reach the host?", Reads: "/proc/1/mountinfo", Reasons: []kvmcheck.Reason{MountNotShared}},
		{Area: "kubelet", Name: "registration", Level: required, Asks: "Can device plugins register?", Reads: "device-plugins/kubelet.sock in the kubelet's root", Reasons: []kvmcheck.Reason{KubeletSocketMissing}},
		{Area: "kubelet", Name: "pod-resources", Level: optional, Asks: "Does the kubelet tell which pod has which device?", Reads: "pod-resources/kubelet.sock in the kubelet's root", Reasons: []kvmcheck.Reason{KubeletSocketMissing}},
		{Area: "kubelet", Name: "device-*", Level: recommended, Asks: "Does the kubelet offer what the host has?", Reads: "device-plugins/kubelet_internal_checkpoint in the kubelet's root, /dev/kvm, /dev/net/tun, /dev/vhost-net", Reasons: []kvmcheck.Reason{DeviceNotOffered, DeviceOfferedInVain}},
		{Area: "runtime", Name: "cri", Level: required, Asks: "Does the container runtime answer, and is it ready?", Reads: "CRI socket: RuntimeService Version, Status", Reasons: []kvmcheck.Reason{NoContainerRuntime, RuntimeNotRunning, CRINotServed, RuntimeNotReady, RuntimeNetworkNotReady}},
		{Area: "runtime", Name: "cgroup-driver", Level: recommended, Asks: "Do kubelet and runtime agree who makes cgroups?", Reads: "CRI socket: RuntimeService RuntimeConfig, Status; the kubelet's config.yaml", Reasons: []kvmcheck.Reason{CgroupDriverMismatch}},
		{Area: "runtime", Name: "snapshotter", Level: optional, Asks: "Do containers of one image share its layers?", Reads: "CRI socket: RuntimeService Status, ImageService ImageFsInfo", Reasons: []kvmcheck.Reason{SnapshotterCopies}},
		{Area: "cni", Name: "network", Level: required, Asks: "Is there a default network for pods?", Reads: "/etc/cni/net.d, or where the runtime says", Reasons: []kvmcheck.Reason{NoDefaultNetwork}},
		{Area: "cni", Name: "plugins", Level: required, Asks: "Are the programs there that the default network calls?", Reads: "/opt/cni/bin, or where the runtime says", Reasons: []kvmcheck.Reason{CNIPluginMissing, CNIPluginNotExecutable, NoDefaultNetwork}},
		{Area: "cni", Name: "vm-plugins", Level: optional, Asks: "Which plugins can connect VMs to further networks?", Reads: "/opt/cni/bin, or where the runtime says", Reasons: []kvmcheck.Reason{NoVMNetworkPlugin}},
		{Area: "cni", Name: "multus", Level: optional, Asks: "Can pods and VMs have more than one network?", Reads: "/etc/cni/net.d and /opt/cni/bin, or where the runtime says", Reasons: []kvmcheck.Reason{NoMultus, MultusNotDefault}},
		{Area: "storage", Name: "ceph", Level: optional, Asks: "Can Ceph RBD volumes be attached?", Reads: "/sys/module, /lib/modules/*/modules.dep", Reasons: []kvmcheck.Reason{StorageModuleMissing}},
		{Area: "storage", Name: "iscsi", Level: optional, Asks: "Can iSCSI volumes (Longhorn) be attached?", Reads: "/sys/module, /etc/iscsi, /etc/systemd/system, /proc/*/comm", Reasons: []kvmcheck.Reason{StorageModuleMissing, StorageToolMissing, ISCSIDaemonNotRunning}},
		{Area: "storage", Name: "multipath", Level: optional, Asks: "Does multipathd leave volumes (Longhorn) alone?", Reads: "/etc/multipath.conf, /proc/*/comm", Reasons: []kvmcheck.Reason{MultipathTakesVolumes}},
		{Area: "storage", Name: "nfs", Level: optional, Asks: "Can NFS volumes be mounted?", Reads: "/sys/module, /sbin/mount.nfs", Reasons: []kvmcheck.Reason{StorageModuleMissing, StorageToolMissing}},
		{Area: "storage", Name: "device-mapper", Level: optional, Asks: "Can volumes be thin, encrypted and have snapshots?", Reads: "/sys/module, /lib/modules/*/modules.dep", Reasons: []kvmcheck.Reason{StorageModuleMissing}},
		{Area: "storage", Name: "space-*", Level: recommended, Asks: "Is there room, on the right file system, for images and scratch space?", Reads: "/proc/1/mountinfo, statfs of the kubelet's root and of the image store", Reasons: []kvmcheck.Reason{SpaceLow, InodesLow, FileSystemUnsuitable}},
		{Area: "guest-agent", Name: "channel", Level: optional, Asks: "Can file systems in VMs be frozen for a backup?", Reads: "/run/libvirt/qemu", Reasons: []kvmcheck.Reason{GuestAgentChannelMissing, GuestAgentSilent, GuestAgentInPods}},
		{Area: "time", Name: "sync", Level: optional, Asks: "Is the clock synchronised?", Reads: "adjtimex(2), /proc/*/comm", Reasons: []kvmcheck.Reason{ClockNotSynchronised}},
	}
}

// The reasons. Each stands for one cause; none is one of kvmcheck's.
const (
	NoKubelet                kvmcheck.Reason = "NoKubelet"
	KubeletNotRunning        kvmcheck.Reason = "KubeletNotRunning"
	MountNotShared           kvmcheck.Reason = "MountNotShared"
	KubeletSocketMissing     kvmcheck.Reason = "KubeletSocketMissing"
	DeviceNotOffered         kvmcheck.Reason = "DeviceNotOffered"
	DeviceOfferedInVain      kvmcheck.Reason = "DeviceOfferedInVain"
	NoContainerRuntime       kvmcheck.Reason = "NoContainerRuntime"
	RuntimeNotRunning        kvmcheck.Reason = "RuntimeNotRunning"
	CRINotServed             kvmcheck.Reason = "CRINotServed"
	RuntimeNotReady          kvmcheck.Reason = "RuntimeNotReady"
	RuntimeNetworkNotReady   kvmcheck.Reason = "RuntimeNetworkNotReady"
	CgroupDriverMismatch     kvmcheck.Reason = "CgroupDriverMismatch"
	SnapshotterCopies        kvmcheck.Reason = "SnapshotterCopies"
	NoDefaultNetwork         kvmcheck.Reason = "NoDefaultNetwork"
	CNIPluginMissing         kvmcheck.Reason = "CNIPluginMissing"
	CNIPluginNotExecutable   kvmcheck.Reason = "CNIPluginNotExecutable"
	NoVMNetworkPlugin        kvmcheck.Reason = "NoVMNetworkPlugin"
	NoMultus                 kvmcheck.Reason = "NoMultus"
	MultusNotDefault         kvmcheck.Reason = "MultusNotDefault"
	StorageModuleMissing     kvmcheck.Reason = "StorageModuleMissing"
	StorageToolMissing       kvmcheck.Reason = "StorageToolMissing"
	ISCSIDaemonNotRunning    kvmcheck.Reason = "ISCSIDaemonNotRunning"
	MultipathTakesVolumes    kvmcheck.Reason = "MultipathTakesVolumes"
	SpaceLow                 kvmcheck.Reason = "SpaceLow"
	InodesLow                kvmcheck.Reason = "InodesLow"
	FileSystemUnsuitable     kvmcheck.Reason = "FileSystemUnsuitable"
	GuestAgentChannelMissing kvmcheck.Reason = "GuestAgentChannelMissing"
	GuestAgentSilent         kvmcheck.Reason = "GuestAgentSilent"
	GuestAgentInPods         kvmcheck.Reason = "GuestAgentInPods"
	ClockNotSynchronised     kvmcheck.Reason = "ClockNotSynchronised"
)
