package sriov

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	pciDrivers = "/sys/bus/pci/drivers"
	classNet   = "/sys/class/net"
)

// Host is where PFs are observed and changed.
type Host struct {
	Root  *hostfs.Root
	Sysfs Sysfs // what writes into Root
	Links Links
	Pods  Pods // nil: nobody gives VFs to pods here
	// Describe says which process one is, as people know it; nil: its number.
	Describe func(pid int) string
}

// Sysfs writes one value into a file below /sys. [hostfs.Root] does.
type Sysfs interface {
	Write(ctx context.Context, name, value string) error
}

// Observe reads PFs and VFs with their users and attributes. What a plan must
// not be wrong about and cannot be read makes the error: the PF is left out.
func Observe(ctx context.Context, host Host) (State, error) {
	pfs, err := PFs(host.Root)
	failures := []error{err}
	state := State{PFs: make([]PFState, 0, len(pfs))}
	if state.Drivers, err = readNames(host.Root, pciDrivers); err != nil {
		failures = append(failures, err)
	}
	if len(pfs) == 0 {
		return state, errors.Join(failures...)
	}
	found, err := host.gather(ctx)
	if err != nil {
		return state, errors.Join(append(failures, err)...)
	}
	for _, pf := range pfs {
		full, err := host.observePF(ctx, pf, found)
		if err != nil {
			failures = append(failures, fmt.Errorf("observe PF %s: %w", pf.Name(), err))
			continue
		}
		state.PFs = append(state.PFs, full)
	}
	return state, errors.Join(failures...)
}

// Inspect reads of one PF what decides whether its VFs can be given away: their
// drivers, their IOMMU groups and its link. Who uses them is not looked for.
func Inspect(root *hostfs.Root, address string) (PFState, error) {
	pf, err := readPF(root, address)
	if err != nil {
		return PFState{}, fmt.Errorf("read PF %s: %w", address, err)
	}
	state := PFState{PF: pf}
	if netdev := pf.Netdev(); netdev != "" {
		if state.LinkDown, err = linkDown(root, netdev); err != nil {
			return PFState{}, err
		}
	}
	for _, vf := range pf.VFs {
		full := VFState{VF: vf}
		if vf.IOMMUGroup != nil {
			full.Neighbours = neighbours(root, vf.Address)
		}
		state.VFs = append(state.VFs, full)
	}
	state.PF.VFs = nil // they are in VFs, with more
	return state, nil
}

// observeOne looks at one PF anew.
func (h Host) observeOne(ctx context.Context, address string) (PFState, error) {
	pf, err := readPF(h.Root, address)
	if err != nil {
		return PFState{}, fmt.Errorf("read PF %s: %w", address, err)
	}
	found, err := h.gather(ctx)
	if err != nil {
		return PFState{}, err
	}
	return h.observePF(ctx, pf, found)
}

// gather begins to look for users: in the interfaces of the host as they are
// now, and elsewhere when it is asked.
func (h Host) gather(ctx context.Context) (*evidence, error) {
	links, err := h.Links.Look(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the host's interfaces: %w", err)
	}
	return &evidence{root: h.Root, pods: h.Pods, describe: h.Describe, links: links}, nil
}

func (h Host) observePF(ctx context.Context, pf PF, found *evidence) (PFState, error) {
	dir := path.Join(pciDevices, pf.Address)
	state := PFState{PF: pf, Users: found.users(ctx, pf.Address, pf.Driver, nil, nil)}
	var err error
	// Kernels before 4.11 have no such switch: they always probe.
	state.Autoprobe, err = h.Root.ReadBool(path.Join(dir, "sriov_drivers_autoprobe"))
	if hostfs.Absent(err) {
		state.Autoprobe, err = true, nil
	}
	if err != nil {
		return state, err
	}
	var attributes map[int]Attributes
	if netdev := pf.Netdev(); netdev != "" {
		if state.LinkDown, err = linkDown(h.Root, netdev); err != nil {
			return state, err
		}
		if attributes, err = h.Links.VFs(ctx, netdev); err != nil {
			return state, fmt.Errorf("read the attributes of its VFs: %w", err)
		}
	}
	users, _ := found.netdevUsers(pf.Netdevs)
	state.Users = append(state.Users, users...)
	for _, netdev := range pf.Netdevs {
		if reason, isUplink := found.links.Uplink(netdev); isUplink {
			state.Uplink = netdev + ": " + reason
		}
	}
	for _, vf := range pf.VFs {
		full, err := h.observeVF(ctx, vf, found)
		if err != nil {
			return state, fmt.Errorf("observe %s: %w", vf.Name(), err)
		}
		for _, netdev := range vf.Netdevs {
			if reason, isUplink := found.links.Uplink(netdev); isUplink {
				full.Users = append(full.Users, User{Source: netdev, Detail: "the node's uplink: " + reason})
			}
		}
		full.Attributes = attributes[vf.Index]
		state.VFs = append(state.VFs, full)
	}
	state.PF.VFs = nil // they are in VFs, with more
	return state, nil
}

func (h Host) observeVF(ctx context.Context, vf VF, found *evidence) (VFState, error) {
	dir := path.Join(pciDevices, vf.Address)
	state := VFState{VF: vf}
	override, err := h.Root.ReadString(path.Join(dir, "driver_override"))
	if err != nil {
		return state, err
	}
	if override != "(null)" {
		state.Override = override
	}
	vfioNames, err := readNames(h.Root, path.Join(dir, "vfio-dev"))
	if err != nil {
		return state, err
	}
	if vf.IOMMUGroup != nil {
		state.Neighbours = neighbours(h.Root, vf.Address)
	}
	state.Users = found.users(ctx, vf.Address, vf.Driver, vf.IOMMUGroup, vfioNames)
	users, mtu := found.netdevUsers(vf.Netdevs)
	state.Users, state.MTU = append(state.Users, users...), mtu
	if vf.Driver != "" && len(vf.Netdevs) == 0 && !isVFIO(vf.Driver, vfioNames) {
		state.Users = append(state.Users, User{
			Source: path.Join(dir, "net"),
			Detail: "driver " + vf.Driver + " is bound, but its interface is not here: it is in another network namespace, such as a pod's",
		})
	}
	return state, nil
}

// neighbours lists the other devices of a VF's IOMMU group, bridges aside,
// which forward and do not act by themselves. What cannot be read is one.
func neighbours(root *hostfs.Root, address string) []string {
	group := path.Join(pciDevices, address, "iommu_group", "devices")
	members, err := root.ReadDir(group)
	if err != nil {
		return []string{fmt.Sprintf("nobody knows what (%v)", err)}
	}
	members = slices.DeleteFunc(members, func(member string) bool {
		if member == address {
			return true
		}
		class, err := root.ReadString(path.Join(group, member, "class"))
		return err == nil && strings.HasPrefix(class, "0x0604") // PCI-to-PCI bridge
	})
	return members
}

// linkDown reads operstate (RFC 2863). A driver that does not follow its link
// says unknown.
func linkDown(root *hostfs.Root, netdev string) (bool, error) {
	state, err := root.ReadString(path.Join(classNet, netdev, "operstate"))
	return state == "down" || state == "lowerlayerdown", err
}
