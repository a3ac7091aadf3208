package sriov

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// pciDevices lists every PCI device as a link to its directory.
const pciDevices = "/sys/bus/pci/devices"

// maxVFs is the largest count that a PF can announce (a 16-bit field of its
// SR-IOV capability).
const maxVFs = 1<<16 - 1

// PF is a PCI physical function with the SR-IOV capability.
type PF struct {
	Address  string   `json:"address"`            // "0000:01:00.0"
	Driver   string   `json:"driver,omitempty"`   // empty: no driver is bound
	TotalVFs int      `json:"totalVFs"`           // sriov_totalvfs: the most it can have
	NumVFs   int      `json:"numVFs"`             // sriov_numvfs: what it has
	NUMANode *int     `json:"numaNode,omitempty"` // nil: the platform does not say
	Netdevs  []string `json:"netdevs,omitempty"`  // its network interfaces in this network namespace
	VFs      []VF     `json:"vfs,omitempty"`      // in index order
}

// VF is one virtual function of a PF.
type VF struct {
	Index      int      `json:"index"`
	Address    string   `json:"address"`
	Driver     string   `json:"driver,omitempty"`
	IOMMUGroup *int     `json:"iommuGroup,omitempty"` // nil: in no group
	Netdevs    []string `json:"netdevs,omitempty"`
}

// PFs lists the PFs of a host in address order, from
// /sys/bus/pci/devices/*/sriov_* (Linux Documentation/ABI/testing/sysfs-bus-pci).
// A device that cannot be read is left out and named in the error; the others
// are returned all the same. A host without PCI has none.
func PFs(root *hostfs.Root) ([]PF, error) {
	addresses, err := root.ReadDir(pciDevices)
	if hostfs.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	var pfs []PF
	var failures []error
	for _, address := range addresses {
		capable, err := root.Exists(path.Join(pciDevices, address, "sriov_totalvfs"))
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if !capable {
			continue
		}
		pf, err := readPF(root, address)
		if err != nil {
			failures = append(failures, fmt.Errorf("read PF %s: %w", address, err))
			continue
		}
		pfs = append(pfs, pf)
	}
	return pfs, errors.Join(failures...)
}

func readPF(root *hostfs.Root, address string) (PF, error) {
	dir := path.Join(pciDevices, address)
	pf := PF{Address: address}
	var err error
	if pf.TotalVFs, err = readCount(root, path.Join(dir, "sriov_totalvfs")); err != nil {
		return pf, err
	}
	if pf.NumVFs, err = readCount(root, path.Join(dir, "sriov_numvfs")); err != nil {
		return pf, err
	}
	if pf.Driver, err = linkBase(root, path.Join(dir, "driver")); err != nil {
		return pf, err
	}
	if pf.NUMANode, err = readNUMANode(root, path.Join(dir, "numa_node")); err != nil {
		return pf, err
	}
	if pf.Netdevs, err = readNames(root, path.Join(dir, "net")); err != nil {
		return pf, err
	}
	pf.VFs, err = readVFs(root, dir)
	return pf, err
}

// readVFs follows the virtfnN links of a PF.
func readVFs(root *hostfs.Root, dir string) ([]VF, error) {
	names, err := root.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var vfs []VF
	for _, name := range names {
		digits, isVF := strings.CutPrefix(name, "virtfn")
		if !isVF {
			continue
		}
		index, err := strconv.Atoi(digits)
		if err != nil {
			return nil, fmt.Errorf("parse %s: want a VF index after virtfn", path.Join(dir, name))
		}
		vf, err := readVF(root, path.Join(dir, name), index)
		if err != nil {
			return nil, err
		}
		vfs = append(vfs, vf)
	}
	slices.SortFunc(vfs, func(a, b VF) int { return a.Index - b.Index })
	return vfs, nil
}

func readVF(root *hostfs.Root, dir string, index int) (VF, error) {
	vf := VF{Index: index}
	var err error
	if vf.Address, err = linkBase(root, dir); err != nil {
		return vf, err
	}
	if vf.Driver, err = linkBase(root, path.Join(dir, "driver")); err != nil {
		return vf, err
	}
	group, err := linkBase(root, path.Join(dir, "iommu_group"))
	if err != nil {
		return vf, err
	}
	if number, err := strconv.Atoi(group); err == nil {
		vf.IOMMUGroup = &number
	}
	vf.Netdevs, err = readNames(root, path.Join(dir, "net"))
	return vf, err
}

func readCount(root *hostfs.Root, name string) (int, error) {
	value, err := root.ReadUint(name)
	if err != nil {
		return 0, err
	}
	if value > maxVFs {
		return 0, fmt.Errorf("parse %s: %d VFs, the most is %d", name, value, maxVFs)
	}
	return int(value), nil
}

// readNUMANode returns nil for -1, which is the kernel's "not known".
func readNUMANode(root *hostfs.Root, name string) (*int, error) {
	value, err := root.ReadInt(name)
	if hostfs.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if value < 0 {
		return nil, nil
	}
	node := int(value)
	return &node, nil
}

// linkBase returns the last element of a link's target, "" when there is no link.
func linkBase(root *hostfs.Root, name string) (string, error) {
	target, err := root.ReadLink(name)
	if hostfs.Absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return path.Base(target), nil
}

func readNames(root *hostfs.Root, name string) ([]string, error) {
	names, err := root.ReadDir(name)
	if hostfs.Absent(err) {
		return nil, nil
	}
	return names, err
}
