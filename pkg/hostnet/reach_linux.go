package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// neighbourPoll is how often the kernel is asked whether a neighbour has answered.
const neighbourPoll = 50 * time.Millisecond

// Reach returns when a neighbour has answered on a link, or with an error when
// ctx ends before. The kernel itself asks, with ARP or neighbour discovery,
// which a host answers that answers nothing else.
func (n *Netlink) Reach(ctx context.Context, link string, address netip.Addr) error {
	tick := time.NewTicker(neighbourPoll)
	defer tick.Stop()
	asked := false
	for {
		answered, err := n.neighbour(link, address, &asked)
		if answered {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("no answer")
			}
			return fmt.Errorf("neighbour %s on %s: %w", address, link, err)
		case <-tick.C:
		}
	}
}

// neighbour reports whether a neighbour has answered since it was asked, and
// asks it if nobody does.
func (n *Netlink) neighbour(name string, address netip.Addr, asked *bool) (bool, error) {
	link, err := n.byName(name)
	if err != nil {
		return false, err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		return false, errors.New("the link is down")
	}
	ip := net.IP(address.AsSlice())
	all, err := dump(context.Background(), "neighbours", func() ([]netlink.Neigh, error) { return n.handle.NeighList(link.Attrs().Index, 0) })
	if err != nil {
		return false, err
	}
	for _, neighbour := range all {
		if !neighbour.IP.Equal(ip) {
			continue
		}
		switch state := neighbour.State; {
		case state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0:
			return true, nil // it was told to the kernel, and is never asked
		case state&netlink.NUD_REACHABLE != 0 && *asked:
			return true, nil
		case state&(netlink.NUD_INCOMPLETE|netlink.NUD_PROBE) != 0:
			*asked = true
			return false, nil // it is being asked
		case state&(netlink.NUD_REACHABLE|netlink.NUD_STALE|netlink.NUD_DELAY) != 0:
			*asked = true
			neighbour.State, neighbour.Flags = netlink.NUD_PROBE, 0
			return false, n.handle.NeighSet(&neighbour)
		}
	}
	*asked = true
	return false, n.handle.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip, State: netlink.NUD_NONE, Flags: netlink.NTF_USE})
}
