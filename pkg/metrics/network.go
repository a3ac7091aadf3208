package metrics

import (
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Network is whether the host's network is as its policies want it, and what
// was done about that.
type Network struct {
	Last      time.Time // of the last look at the network; zero: none yet
	Checked   bool      // the last look succeeded; if not, Drift, Refusals and VFs are not known
	Drift     int       // steps that would bring back what the policies want
	Refusals  int       // what the policies want, and a guard forbids
	Stuck     bool      // a change could not be undone
	Plans     uint64
	Applies   uint64
	Rollbacks uint64
	VFs       []VFCount
	Cluster   *Following // nil: the policies are not the cluster's
}

// Following is how the policies of the cluster come to the node.
type Following struct {
	Up     bool         // all is known, and changes are announced
	Errors []NamedCount // by reason
}

// VFCount counts the virtual functions of a pool that are in one state.
type VFCount struct {
	PF    string // network device of the physical function
	Pool  string // empty: of none
	State string // "free", "used" or "driverless"
	Count uint64
}

// appendNetwork appends what is known about the network, if it is watched.
func appendNetwork(w *writer, n *Network) {
	if n == nil {
		return
	}
	write(w, hostNetworkFamilies[:], []Network{*n}, unlabelled[Network])
	if n.Cluster != nil {
		write(w, followingFamilies[:], []Following{*n.Cluster}, unlabelled[Following])
	}
	if n.Checked {
		write(w, inventoryFamilies[:], n.VFs, labelVFs)
	}
}

func labelVFs(buf []byte, c *VFCount) []byte {
	buf = appendLabel(buf, "pf", c.PF)
	buf = appendLabel(append(buf, ','), "pool", c.Pool)
	return appendLabel(append(buf, ','), "state", c.State)
}

// hostNetworkFamilies are about the host's network as a whole.
var hostNetworkFamilies = [...]family[Network]{
	{
		"virtnode_net_drift", gauge, plain, "", fromAgent, "Steps that would bring back what the policies of the host network want; no series while that is not known.",
		func(w *writer, n *Network) { w.put(n.known(n.Drift)) },
	},
	{
		"virtnode_net_refusals", gauge, plain, "", fromAgent, "What the policies of the host network want, and a guard forbids; no series while that is not known.",
		func(w *writer, n *Network) { w.put(n.known(n.Refusals)) },
	},
	{
		"virtnode_net_check_successful", gauge, plain, "", fromAgent, "Whether the last look at the host network succeeded.",
		func(w *writer, n *Network) { w.put(boolean(n.Checked)) },
	},
	{
		"virtnode_net_last_check_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When the host network was last looked at with success.",
		func(w *writer, n *Network) { w.put(unixTime(n.Last)) },
	},
	{
		"virtnode_net_stuck", gauge, plain, "", fromAgent, "Whether the last change of the host network could neither be finished nor undone.",
		func(w *writer, n *Network) { w.put(boolean(n.Stuck)) },
	},
	{
		"virtnode_net_plans_total", counter, plain, "", fromAgent, "Plans made for the host network.",
		func(w *writer, n *Network) { w.put(qemu.Some(n.Plans)) },
	},
	{
		"virtnode_net_applies_total", counter, plain, "", fromAgent, "Changes of the host network that were made and kept.",
		func(w *writer, n *Network) { w.put(qemu.Some(n.Applies)) },
	},
	{
		"virtnode_net_rollbacks_total", counter, plain, "", fromAgent, "Changes of the host network that were undone, or were to be.",
		func(w *writer, n *Network) { w.put(qemu.Some(n.Rollbacks)) },
	},
}

// followingFamilies are about the policies of the cluster.
var followingFamilies = [...]family[Following]{
	{
		"virtnode_net_cluster_up", gauge, plain, "", fromAgent, "Whether the cluster tells which HostNetworks there are. While it does not, those that are known, or were applied last, hold on.",
		func(w *writer, f *Following) { w.put(boolean(f.Up)) },
	},
	{
		"virtnode_net_cluster_errors_total", counter, plain, "reason", fromAgent, "Requests for HostNetworks that failed, by reason. They are tried again.",
		func(w *writer, f *Following) { putCounts(w, "reason", f.Errors) },
	},
}

// inventoryFamilies count virtual functions.
var inventoryFamilies = [...]family[VFCount]{
	{
		"virtnode_net_vfs", gauge, plain, "", fromAgent, "Virtual functions by pool (empty: of none) and state: free, used, or driverless.",
		func(w *writer, c *VFCount) { w.put(qemu.Some(c.Count)) },
	},
}

// known is a number of the last look, if that told.
func (n *Network) known(count int) qemu.Num {
	return qemu.Num{V: uint64(max(count, 0)), Set: n.Checked}
}
