package hostnet

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// readManagers finds out who changes links by itself, from the files that
// these programs keep of what they manage.
func (h *Host) readManagers(state *State) error {
	interfaces, err := optional(h.Root, "/etc/network/interfaces")
	if err != nil {
		return err
	}
	ifupdown := parseInterfaces(interfaces)
	for i := range state.Links {
		link := &state.Links[i]
		link.Managers = nil
		for _, of := range []struct {
			name, file string
			manages    func([]byte) bool
		}{
			{"NetworkManager", fmt.Sprintf("/run/NetworkManager/devices/%d", link.Index), managedByNetworkManager},
			{"systemd-networkd", fmt.Sprintf("/run/systemd/netif/links/%d", link.Index), managedByNetworkd},
		} {
			data, err := optional(h.Root, of.file)
			if err != nil {
				return err
			}
			if data != nil && of.manages(data) {
				link.Managers = append(link.Managers, Manager{of.name, of.file})
			}
		}
		if ifupdown[link.Name] && !link.Loopback {
			link.Managers = append(link.Managers, Manager{"ifupdown", "/etc/network/interfaces"})
		}
	}
	return nil
}

// optional reads a file that need not be there, nor what it lies in.
func optional(root *hostfs.Root, name string) ([]byte, error) {
	data, err := root.ReadFile(name)
	if hostfs.Absent(err) || errors.Is(err, hostfs.ErrNotMounted) {
		return nil, nil
	}
	return data, err
}

// managedByNetworkManager reads /run/NetworkManager/devices/IFINDEX, a key file.
func managedByNetworkManager(data []byte) bool { return keyFile(data)["managed"] == "true" }

// managedByNetworkd reads /run/systemd/netif/links/IFINDEX, lines of KEY=VALUE.
func managedByNetworkd(data []byte) bool {
	switch keyFile(data)["ADMIN_STATE"] {
	case "", "unmanaged", "linger":
		return false
	}
	return true
}

func keyFile(data []byte) map[string]string {
	values := make(map[string]string)
	for line := range bytes.Lines(data) {
		if key, value, found := strings.Cut(strings.TrimSpace(string(line)), "="); found && !strings.HasPrefix(key, "#") {
			values[key] = value
		}
	}
	return values
}

// parseInterfaces returns the links that /etc/network/interfaces configures
// (interfaces(5)).
func parseInterfaces(data []byte) map[string]bool {
	links := make(map[string]bool)
	for line := range bytes.Lines(data) {
		if words := strings.Fields(string(line)); len(words) >= 2 && words[0] == "iface" {
			links[words[1]] = true
		}
	}
	return links
}
