package nodestack

import (
	"fmt"
	"path"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

func evaluateKubeletNode(facts Facts) finding {
	const area, check = "kubelet", "node"
	kubelet, leftover := facts.Kubelet.Running, facts.Kubelet.Leftover
	switch {
	case !kubelet.Known:
		return kvmcheck.Undecided(area, check, kubelet.Err)
	case kubelet.Value:
		return kvmcheck.Found(area, check, "a kubelet runs, its root is "+facts.Kubelet.RootDir)
	case leftover.Known && leftover.Value:
		return kvmcheck.Lacking(area, check, KubeletNotRunning, leftover.Source+" is there, but no kubelet runs",
			"systemctl status kubelet; journalctl -u kubelet -n 50")
	default:
		message := "no kubelet on this host, so what KubeVirt needs around KVM is not asked"
		if runtime := facts.runtime(); runtime.State == RuntimeAnswered {
			message += fmt.Sprintf(" (%s %s serves the CRI)", runtime.Name, runtime.Version)
		}
		return kvmcheck.Lacking(area, check, NoKubelet, message, "only for KubeVirt: join this host to a cluster")
	}
}

func evaluateKubelet(facts Facts, host kvmcheck.Facts) []finding {
	return []finding{
		evaluatePropagation(facts.Kubelet),
		evaluateSocket("registration", facts.Kubelet.Registration, "device plugins register through it"),
		evaluateSocket("pod-resources", facts.Kubelet.PodResources, "monitoring asks it which pod has which device"),
		evaluateDevice(facts.Kubelet, "kvm", hostStatus(host, "kvm/device"), "/dev/kvm"),
		evaluateDevice(facts.Kubelet, "tun", hostStatus(host, "devices/tun"), "/dev/net/tun"),
		evaluateDevice(facts.Kubelet, "vhost-net", hostStatus(host, "devices/vhost-net"), "/dev/vhost-net"),
	}
}

// evaluatePropagation asks whether what a pod mounts below the kubelet's root
// with Bidirectional propagation, as virt-handler and CSI drivers do, reaches
// the host.
func evaluatePropagation(kubelet KubeletFacts) finding {
	const area, check = "kubelet", "mount-propagation"
	mount := kubelet.Mount
	switch {
	case !mount.Known:
		return kvmcheck.Undecided(area, check, mount.Err)
	case mount.Value.Shared:
		return kvmcheck.Found(area, check, fmt.Sprintf("%s lies on %s, which is shared", kubelet.RootDir, mount.Value.Point))
	default:
		return kvmcheck.Lacking(area, check, MountNotShared,
			fmt.Sprintf("%s: %s, on which %s lies, is not shared: virt-handler and CSI drivers do not start", mount.Source, mount.Value.Point, kubelet.RootDir),
			"mount --make-rshared "+mount.Value.Point+"; at boot: MountFlags=shared, or a unit that does it before the container runtime starts")
	}
}

func evaluateSocket(check string, socket kvmcheck.Reading[bool], purpose string) finding {
	const area = "kubelet"
	switch {
	case !socket.Known:
		return kvmcheck.Undecided(area, check, socket.Err)
	case socket.Value:
		return kvmcheck.Found(area, check, socket.Source)
	default:
		return kvmcheck.Lacking(area, check, KubeletSocketMissing, socket.Source+" does not exist; "+purpose,
			"systemctl restart kubelet; if somebody emptied "+path.Dir(socket.Source)+", restart the device plugins too")
	}
}

// evaluateDevice compares a resource of KubeVirt's device plugins with the
// device node that it hands out.
func evaluateDevice(kubelet KubeletFacts, name string, host kvmcheck.Status, node string) finding {
	const area = "kubelet"
	check, resource := "device-"+name, "devices.kubevirt.io/"+name
	devices := kubelet.Devices
	if !devices.Known {
		return kvmcheck.Undecided(area, check, devices.Err)
	}
	offered := devices.Value[resource]
	switch {
	case offered == 0 && host == kvmcheck.NotReady:
		return kvmcheck.Lacking(area, check, DeviceNotOffered,
			fmt.Sprintf("%s: no %s, rightly: %s cannot be used", devices.Source, resource, node), "see the finding on "+node)
	case offered == 0 && host == kvmcheck.Ready:
		return kvmcheck.Lacking(area, check, DeviceNotOffered,
			fmt.Sprintf("%s: no %s, although %s works", devices.Source, resource, node),
			"KubeVirt's virt-handler offers it: kubectl get pods -A -l kubevirt.io=virt-handler -o wide; its log on this node says why not")
	case host == kvmcheck.Unknown:
		return kvmcheck.Undecided(area, check, fmt.Sprintf("%s: %d × %s, but whether %s works is not known", devices.Source, offered, resource, node))
	case host == kvmcheck.NotReady:
		return kvmcheck.Lacking(area, check, DeviceOfferedInVain,
			fmt.Sprintf("%s: %d × %s, but %s cannot be used: VMs that are scheduled here do not start", devices.Source, offered, resource, node),
			"see the finding on "+node+"; meanwhile: kubectl cordon this node")
	default:
		return kvmcheck.Found(area, check, fmt.Sprintf("%d × %s", offered, resource))
	}
}

// hostStatus is what kvmcheck found out about a device. What the agent may not
// do, virt-handler may.
func hostStatus(host kvmcheck.Facts, key string) kvmcheck.Status {
	for _, finding := range kvmcheck.Evaluate(host, kvmcheck.Profile{}) {
		if finding.Key() == key && finding.Reason != kvmcheck.PermissionDenied {
			return finding.Status
		}
	}
	return kvmcheck.Unknown
}
