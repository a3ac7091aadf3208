package hostnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// OtherSpaces returns what finds links of other network namespaces that lie on
// links of this one: a pod's macvlan, a VLAN that was moved. It finds those
// namespaces that a process is in, by /proc/PID/ns/net.
//
// What it must not look into, it says: somebody there may use any link. Whose a
// namespace is, describe says of a process in it.
func OtherSpaces(root *hostfs.Root, describe func(pid int) string) func(context.Context, []Link) (map[string][]Away, []string, error) {
	return func(ctx context.Context, links []Link) (map[string][]Away, []string, error) {
		own, err := root.ReadLink("/proc/self/ns/net")
		if err != nil {
			return nil, nil, err
		}
		names, err := root.ReadDir("/proc")
		if err != nil {
			return nil, nil, err
		}
		all := make(map[string][]Away)
		var blind []string
		seen := map[string]bool{own: true}
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			space := path.Join("/proc", name, "ns/net")
			id, err := root.ReadLink(space)
			if gone(err) {
				continue
			}
			if err != nil {
				blind = append(blind, err.Error())
				continue
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			if err := lookInto(ctx, root, name, links, func(on string, away Away) {
				away.User = describe(pid)
				all[on] = append(all[on], away)
			}); err != nil && !gone(err) {
				blind = append(blind, fmt.Sprintf("look into the network namespace of process %s: %v", name, err))
			}
		}
		return all, blind, nil
	}
}

// gone reports whether an error says that a process has ended meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// lookInto tells the links of a process's network namespace that lie on others.
func lookInto(ctx context.Context, root *hostfs.Root, pid string, links []Link, found func(on string, away Away)) (err error) {
	full, err := root.Resolve(path.Join("/proc", pid))
	if err != nil {
		return err
	}
	n, err := OpenNetlink(path.Join(full, "ns/net"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	all, err := dump(ctx, "links", n.handle.LinkList)
	if err != nil {
		return err
	}
	for _, link := range all {
		attrs := link.Attrs()
		kind := link.Type()
		if attrs.NetNsID < 0 || attrs.ParentIndex == 0 || kind == "veth" {
			continue
		}
		ours, err := n.handle.GetNetNsIdByPid(unix.Getpid())
		if err != nil || ours != attrs.NetNsID {
			continue // it lies on a link of a third namespace
		}
		for i := range links {
			if links[i].Index == attrs.ParentIndex {
				found(links[i].Name, Away{Name: attrs.Name, Kind: kind, MTU: attrs.MTU})
			}
		}
	}
	return nil
}

var _ Kernel = (*Netlink)(nil)
