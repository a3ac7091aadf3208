package metrics

import (
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Publish is how the node's labels and conditions get to its cluster.
type Publish struct {
	Up          bool         // the cluster has what was found last
	Writes      []NamedCount // by what was written
	Errors      []NamedCount // by reason
	Conflicts   uint64
	InConflict  int
	Labels      int
	LabelsCut   int
	LastSuccess time.Time
}

// NamedCount counts something by a name.
type NamedCount struct {
	Name  string
	Count uint64
}

// appendPublish appends what is known, if anything is published.
func appendPublish(w *writer, p *Publish) {
	if p != nil {
		write(w, publishFamilies[:], []Publish{*p}, unlabelled[Publish])
	}
}

// publishFamilies are about what is written to the cluster.
var publishFamilies = [...]family[Publish]{
	{
		"virtnode_node_publish_up", gauge, plain, "", fromAgent, "Whether the cluster has the labels, conditions and NodeVirtualization that were found last.",
		func(w *writer, p *Publish) { w.put(boolean(p.Up)) },
	},
	{
		"virtnode_node_publish_writes_total", counter, plain, "object", fromAgent, "Writes to the cluster that succeeded, by what was written. There are none while nothing changes.",
		func(w *writer, p *Publish) { putCounts(w, "object", p.Writes) },
	},
	{
		"virtnode_node_publish_errors_total", counter, plain, "reason", fromAgent, "Requests to the cluster that failed, by reason. They are tried again.",
		func(w *writer, p *Publish) { putCounts(w, "reason", p.Errors) },
	},
	{
		"virtnode_node_publish_conflicts_total", counter, plain, "", fromAgent, "Fields of the agent's that somebody else has made something else of. They are left to them.",
		func(w *writer, p *Publish) { w.put(qemu.Some(p.Conflicts)) },
	},
	{
		"virtnode_node_publish_fields_in_conflict", gauge, plain, "", fromAgent, "Fields that are somebody else's now.",
		func(w *writer, p *Publish) { w.put(qemu.Some(uint64(max(p.InConflict, 0)))) },
	},
	{
		"virtnode_node_publish_labels", gauge, plain, "", fromAgent, "Labels of the agent's on the Node.",
		func(w *writer, p *Publish) { w.put(qemu.Some(uint64(max(p.Labels, 0)))) },
	},
	{
		"virtnode_node_publish_labels_cut", gauge, plain, "", fromAgent, "Labels left out, since a node may have only so many.",
		func(w *writer, p *Publish) { w.put(qemu.Some(uint64(max(p.LabelsCut, 0)))) },
	},
	{
		"virtnode_node_publish_last_success_timestamp_seconds", gauge, nanoseconds, "", fromAgent, "When the cluster was last seen to have what was found.",
		func(w *writer, p *Publish) { w.put(unixTime(p.LastSuccess)) },
	},
}

func putCounts(w *writer, label string, counts []NamedCount) {
	for _, c := range counts {
		w.putLabel(label, c.Name, qemu.Some(c.Count))
	}
}
