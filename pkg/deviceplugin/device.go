package deviceplugin

import (
	"fmt"
	"strings"

	"github.com/virtnode/nodeagent/pkg/sriov"
)

// Device is a VF as the kubelet gets it.
type Device struct {
	Address  string // its ID: what CNI plugins and virt-launcher want to know
	Problem  string // why no pod must get it; empty: one may
	NUMANode *int
	Group    *int // its IOMMU group, when it is VFIO's
}

// Devices lists the VFs of a pool that there are. Whether they are in use does
// not matter. One is healthy when its driver is the pool's, when it is isolated
// if VMs get it, and when its PF has a link.
func Devices(pool sriov.Pool, pf sriov.PFState) []Device {
	var devices []Device
	for _, index := range pool.VFs {
		vf, there := pf.VF(index)
		if !there {
			continue
		}
		device := Device{Address: vf.Address, NUMANode: pf.NUMANode}
		if vf.IsVFIO() {
			device.Group = vf.IOMMUGroup
		}
		switch {
		case pf.LinkDown:
			device.Problem = pf.Name() + " has no link"
		case vf.Driver == "":
			device.Problem = "no driver is bound"
		case pool.Driver != "" && vf.Driver != pool.Driver, pool.Driver == "" && vf.IsVFIO():
			device.Problem = fmt.Sprintf("driver %s is bound, and not the one of pool %s", vf.Driver, pool.Name)
		case vf.IsVFIO():
			device.Problem = vf.IsolationProblem()
		}
		devices = append(devices, device)
	}
	return devices
}

// environment names the variable from which KubeVirt's virt-launcher, among
// others, reads the addresses of what it was given of a resource.
func environment(resource string) string {
	return "PCIDEVICE_" + strings.NewReplacer("/", "_", ".", "_").Replace(strings.ToUpper(resource))
}

// nodes lists the device files that a container with the device needs.
func (d Device) nodes() []string {
	if d.Group == nil {
		return nil
	}
	return []string{fmt.Sprintf("/dev/vfio/%d", *d.Group)}
}

// vfioContainer is needed once, with whatever VFIO devices.
const vfioContainer = "/dev/vfio/vfio"
