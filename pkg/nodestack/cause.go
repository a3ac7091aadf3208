package nodestack

import (
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Causes explains every reason of this package, in alphabetical order.
func Causes() []kvmcheck.Cause {
	causes := slices.Concat(causesOfKubelet(), causesOfRuntime(), causesOfCNI(), causesOfStorage(), causesOfGuests())
	slices.SortFunc(causes, func(a, b kvmcheck.Cause) int { return strings.Compare(string(a.Reason), string(b.Reason)) })
	return causes
}

func cause(reason kvmcheck.Reason, meaning string, fixes ...kvmcheck.Fix) kvmcheck.Cause {
	return kvmcheck.Cause{Reason: reason, Meaning: meaning, Fixes: fixes}
}

func fix(on, do string) kvmcheck.Fix { return kvmcheck.Fix{On: on, Do: do} }

func causesOfKubelet() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		cause(NoKubelet, "No process of this host is a kubelet, so it is no node of a cluster, and what KubeVirt needs around KVM is not asked.",
			fix("", "only for KubeVirt: join the host to a cluster (kubeadm join, k3s agent)")),
		cause(KubeletNotRunning, "The kubelet's root directory is there, but no kubelet runs: it has crashed, was stopped, or was removed without its files.",
			fix("", "systemctl status kubelet; journalctl -u kubelet -n 50"),
			fix("", "if this is no node any more: kubeadm reset, and remove the directory")),
		cause(MountNotShared, "The mount that holds the kubelet's root does not pass mounts on. Containers that mount there with Bidirectional propagation, virt-handler and CSI drivers among them, are refused by the runtime.",
			fix("", "mount --make-rshared /"),
			fix("a node in a container", "start that container with shared propagation of the kubelet's root (docker run -v /var/lib/kubelet:/var/lib/kubelet:shared)")),
		cause(KubeletSocketMissing, "The kubelet runs, but a socket that it makes is not there. Something removed it, or the kubelet's root is another than it seems.",
			fix("", "systemctl restart kubelet, then restart the device plugins, which register anew"),
			fix("", "compare the kubelet's --root-dir with the directory named in the finding")),
		cause(DeviceNotOffered, "The kubelet has no healthy device of this resource, so the scheduler places no VM here that asks for it (Insufficient devices.kubevirt.io/kvm). KubeVirt's virt-handler registers these resources; either it does not run here, or it could not open the device.",
			fix("", "kubectl get pods -A -l kubevirt.io=virt-handler -o wide; look at the log of the one on this node"),
			fix("", "if KubeVirt is not installed yet, this is as it should be")),
		cause(DeviceOfferedInVain, "The kubelet offers a device that does not work on this host. VMs are scheduled here and do not start.",
			fix("", "kubectl cordon the node, and repair the device as its own finding says"),
			fix("", "restart the virt-handler of this node, so that it looks anew")),
	}
}

func causesOfRuntime() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		cause(NoContainerRuntime, "A kubelet runs, but no container runtime has its socket where the kubelet was told, or where runtimes have theirs.",
			fix("", "systemctl enable --now containerd (or crio)"),
			fix("", "compare containerRuntimeEndpoint in the kubelet's configuration with the runtime's")),
		cause(RuntimeNotRunning, "The runtime's socket is there, but nobody listens: the runtime was killed or is starting.",
			fix("", "systemctl restart containerd; journalctl -u containerd -n 50")),
		cause(CRINotServed, "Somebody answers on the socket, but not with the Container Runtime Interface runtime.v1 that every kubelet since 1.26 speaks. Docker's packages install containerd with its CRI turned off.",
			fix("containerd", `remove "cri" from disabled_plugins in /etc/containerd/config.toml, and restart it`),
			fix("containerd before 1.6", "upgrade it")),
		cause(RuntimeNotReady, "The runtime itself reports that it cannot run containers.",
			fix("", "journalctl -u containerd -n 50 (or -u crio)")),
		cause(RuntimeNetworkNotReady, "The runtime reports that it has no network for pods: mostly no usable configuration in its CNI directory.",
			fix("", "look at the finding cni/network, and at the pods of the cluster's network on this node")),
		cause(CgroupDriverMismatch, "The kubelet and the runtime are set to different makers of cgroups, systemd and cgroupfs. Pods start and then lose their limits, or do not start.",
			fix("containerd", "SystemdCgroup = true in the options of the runtime runc in /etc/containerd/config.toml"),
			fix("kubelet", "cgroupDriver: systemd in /var/lib/kubelet/config.yaml"),
			fix("", "drain the node before, restart both after")),
		cause(SnapshotterCopies, "The runtime's image store cannot share layers between containers and copies images whole. A containerDisk then costs its full size and the time to copy it, for every VM.",
			fix("containerd", `snapshotter = "overlayfs"`),
			fix("CRI-O", `driver = "overlay" in /etc/containers/storage.conf`),
			fix("xfs", "the file system needs ftype=1 (xfs_info)")),
	}
}

func causesOfCNI() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		cause(NoDefaultNetwork, "The runtime's CNI directory has no network configuration, so pods get no network and the node stays NotReady.",
			fix("", "install the cluster's network; if it is installed, look at its DaemonSet's pod on this node, which writes the file")),
		cause(CNIPluginMissing, "The default network's configuration calls a program that is not in the runtime's CNI directories. Every pod fails to start with: failed to find plugin in path.",
			fix("Debian, Ubuntu", "apt install containernetworking-plugins; its programs are in /usr/lib/cni"),
			fix("", "restart the DaemonSet's pod that installs the plugin on this node")),
		cause(CNIPluginNotExecutable, "A CNI plugin's file is there, but is no regular file that can be executed: mostly a copy that was interrupted.",
			fix("", "chmod 755 the file, or install the plugin anew")),
		cause(NoVMNetworkPlugin, "None of the plugins that connect VMs to further networks is installed. VMs have the pod network only.",
			fix("", "install containernetworking-plugins for bridge and macvlan, KubeVirt's macvtap-cni, or sriov-cni")),
		cause(NoMultus, "Multus is not installed, so pods and VMs have one network.",
			fix("", "install Multus if VMs shall have further networks")),
		cause(MultusNotDefault, "Multus is installed, but another network's configuration sorts before its own, and runtimes take the first. Annotations for further networks are ignored without an error.",
			fix("", "give the configuration of Multus the first name (00-multus.conf), and remove other files that sort before it"),
			fix("", "look at the log of the Multus pod on this node: it writes the file")),
	}
}

func causesOfStorage() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		cause(StorageModuleMissing, "The running kernel has no such module: neither loaded, nor built in, nor in the list of what can be loaded.",
			fix("Debian", "linux-image-amd64 in place of linux-image-cloud-amd64"),
			fix("Ubuntu", "apt install linux-modules-extra-$(uname -r)"),
			fix("RHEL, Fedora", "dnf install kernel-modules-extra"),
			fix("", "after an update of the kernel, reboot: the running kernel's modules may have been removed")),
		cause(StorageToolMissing, "A program or a file on the host that a storage driver uses is not there.",
			fix("NFS; Debian, Ubuntu", "apt install nfs-common"),
			fix("NFS; RHEL, Fedora", "dnf install nfs-utils"),
			fix("iSCSI; Debian, Ubuntu", "apt install open-iscsi"),
			fix("iSCSI; RHEL, Fedora", "dnf install iscsi-initiator-utils")),
		cause(ISCSIDaemonNotRunning, "The iSCSI initiator is installed, but its daemon neither runs nor is started on demand.",
			fix("", "systemctl enable --now iscsid")),
		cause(MultipathTakesVolumes, "multipathd runs without a blacklist. It may make a multipath device of a volume that a storage driver has just attached, and mounting the volume then fails as busy.",
			fix("", `add blacklist { devnode "^sd[a-z0-9]+" } to /etc/multipath.conf and restart multipathd; leave out disks that do have several paths`),
			fix("", "if no disk has several paths: systemctl disable --now multipathd.socket multipathd")),
		cause(SpaceLow, "The file system has less room than the kubelet's default threshold. The kubelet removes images and evicts pods, VMs among them.",
			fix("", "crictl rmi --prune; remove logs; enlarge the file system")),
		cause(InodesLow, "The file system has few inodes left, so that files cannot be made although there is room. The kubelet evicts pods.",
			fix("", "crictl rmi --prune; find the directory with many small files: du --inodes -x / | sort -n | tail")),
		cause(FileSystemUnsuitable, "The directory lies on a file system that is no place for images and disks: in memory, behind a network, an overlay, or read-only.",
			fix("", "put it on a local disk with xfs or ext4"),
			fix("read-only", "dmesg says whether the disk has failed")),
	}
}

func causesOfGuests() []kvmcheck.Cause {
	return []kvmcheck.Cause{
		cause(GuestAgentChannelMissing, "A VM has no channel for a guest agent, so nobody can ask it to freeze its file systems. A backup is then as after a power cut.",
			fix("libvirt", "add <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel> to the domain")),
		cause(GuestAgentSilent, "The VM has the channel, but nothing in the VM has opened it.",
			fix("Debian, Ubuntu, RHEL in the VM", "install qemu-guest-agent, and start it"),
			fix("Windows in the VM", "install the guest agent from the virtio-win image")),
		cause(GuestAgentInPods, "KubeVirt's VMs have their libvirt in their pods. The host cannot see the channel; the API server can.",
			fix("", "kubectl get vmi: the condition AgentConnected")),
		cause(ClockNotSynchronised, "The kernel says that nothing disciplines the clock. It drifts, and certificates, leases, and the order of logs drift with it; a migrated VM's clock jumps.",
			fix("Debian, Ubuntu, RHEL", "install chrony, and enable it"),
			fix("chrony", "without rtcsync in its configuration it never tells the kernel; chronyc tracking says how it stands")),
	}
}
