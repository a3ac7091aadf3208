package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// Host is where links are looked at: a kernel, and the files beside it.
type Host struct {
	Kernel Kernel
	Root   *hostfs.Root
	// Reach lists addresses that must stay reachable beside what the default
	// routes lead to: the node's own, the API server's, an operator's.
	Reach []netip.Addr
	// Away lists the links of other network namespaces, by the name of the
	// link that they lie on, and what it could not look into. Nil: nobody looks.
	Away func(ctx context.Context, links []Link) (away map[string][]Away, blind []string, err error)
}

// Observe reads the links and all that guards want to know of them. What
// cannot be read is an error: a plan must not be made from half a state.
func (h *Host) Observe(ctx context.Context) (State, error) {
	state, err := h.Kernel.Dump(ctx, h.Reach)
	if err != nil {
		return State{}, fmt.Errorf("observe links: %w", err)
	}
	for i := range state.Links {
		if link := &state.Links[i]; link.PCI != nil {
			if link.PCI, err = readPCI(h.Root, link.PCI.Address); err != nil {
				return State{}, fmt.Errorf("observe link %s: %w", link.Name, err)
			}
		}
	}
	if err := h.readManagers(&state); err != nil {
		return State{}, fmt.Errorf("observe who manages links: %w", err)
	}
	if h.Away == nil {
		return state, nil
	}
	away, blind, err := h.Away(ctx, state.Links)
	if err != nil {
		return State{}, fmt.Errorf("observe other network namespaces: %w", err)
	}
	state.Blind = blind
	for i := range state.Links {
		state.Links[i].Away = away[state.Links[i].Name]
	}
	return state, nil
}

// readPCI reads what is behind a network card, from /sys/bus/pci/devices, or
// through /sys/bus/virtio/devices (Linux Documentation/ABI/testing/sysfs-bus-pci).
func readPCI(root *hostfs.Root, address string) (*PCI, error) {
	if strings.HasPrefix(address, "virtio") {
		target, err := root.ReadLink(path.Join("/sys/bus/virtio/devices", address))
		if hostfs.Absent(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		address = path.Base(path.Dir(target))
	}
	dir := path.Join("/sys/bus/pci/devices", address)
	if found, err := root.Exists(dir); err != nil || !found {
		return nil, err
	}
	pci := &PCI{Address: address}
	for _, id := range []struct {
		file string
		to   *string
	}{{"vendor", &pci.Vendor}, {"device", &pci.Device}} {
		value, err := root.ReadString(path.Join(dir, id.file))
		if err != nil {
			return nil, err
		}
		*id.to = strings.TrimPrefix(value, "0x")
	}
	for _, link := range []struct {
		file string
		to   *string
	}{{"driver", &pci.Driver}, {"physfn", &pci.PF}} {
		target, err := root.ReadLink(path.Join(dir, link.file))
		if err != nil && !hostfs.Absent(err) {
			return nil, err
		}
		if err == nil {
			*link.to = path.Base(target)
		}
	}
	return pci, nil
}
