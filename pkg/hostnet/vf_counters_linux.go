package hostnet

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VFCounters are what a PF's driver counts for one VF. Received is what the VF
// has received.
type VFCounters struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxDropped, TxDropped uint64
	Broadcast, Multicast uint64 // packets received
}

// ReadVFCounters returns, by VF index, what the driver of a PF's interface
// counts, in the network namespace that this process is in. It is empty for a
// driver that does not count: of that, the kernel tells zeros.
func ReadVFCounters(pf string) (map[int]VFCounters, error) {
	answer, err := askVFs(pf)
	if err != nil {
		return nil, fmt.Errorf("read counters of the VFs of %s: %w", pf, err)
	}
	all := parseVFCounters(answer)
	if !counts(all) {
		return nil, nil
	}
	return all, nil
}

// askVFs returns what the kernel says of a PF's interface and its VFs, an
// RTM_NEWLINK message. The library that the rest of this package asks would
// read it too, but takes the padding between two of the counters for a third.
func askVFs(pf string) ([]byte, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(pf)))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(nl.RTEXT_FILTER_VF)))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("%d answers", len(answers))
	}
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// counts reports whether a driver counts at all: whether any VF has anything.
func counts(all map[int]VFCounters) bool {
	for _, counters := range all {
		if counters != (VFCounters{}) {
			return true
		}
	}
	return false
}

// parseVFCounters reads IFLA_VFINFO_LIST of an RTM_NEWLINK message (Linux
// include/uapi/linux/if_link.h).
func parseVFCounters(message []byte) map[int]VFCounters {
	all := make(map[int]VFCounters)
	if len(message) < unix.SizeofIfInfomsg {
		return all
	}
	for list, vfs := range attributes(message[unix.SizeofIfInfomsg:]) {
		if list != unix.IFLA_VFINFO_LIST {
			continue
		}
		for _, vf := range attributes(vfs) {
			index, counters := -1, VFCounters{}
			for kind, value := range attributes(vf) {
				switch {
				case kind == unix.IFLA_VF_MAC && len(value) >= 4: // struct ifla_vf_mac
					index = int(binary.NativeEndian.Uint32(value))
				case kind == unix.IFLA_VF_STATS:
					counters = readVFStats(value)
				}
			}
			if index >= 0 {
				all[index] = counters
			}
		}
	}
	return all
}

func readVFStats(data []byte) VFCounters {
	var c VFCounters
	to := map[uint16]*uint64{
		unix.IFLA_VF_STATS_RX_PACKETS: &c.RxPackets, unix.IFLA_VF_STATS_TX_PACKETS: &c.TxPackets,
		unix.IFLA_VF_STATS_RX_BYTES: &c.RxBytes, unix.IFLA_VF_STATS_TX_BYTES: &c.TxBytes,
		unix.IFLA_VF_STATS_RX_DROPPED: &c.RxDropped, unix.IFLA_VF_STATS_TX_DROPPED: &c.TxDropped,
		unix.IFLA_VF_STATS_BROADCAST: &c.Broadcast, unix.IFLA_VF_STATS_MULTICAST: &c.Multicast,
	}
	for kind, value := range attributes(data) {
		if number := to[kind]; number != nil && len(value) == 8 {
			*number = binary.NativeEndian.Uint64(value)
		}
	}
	return c
}

// attributes walks the attributes of a netlink message, up to the first that
// is broken (rtnetlink(7)).
func attributes(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofRtAttr || length > len(data) || !yield(kind, data[unix.SizeofRtAttr:length]) {
				return
			}
			data = data[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(data)):]
		}
	}
}
