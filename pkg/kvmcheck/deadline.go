package kvmcheck

import (
	"context"
	"time"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// Deadline bounds one check of a host, whatever hangs in it. A healthy check
// takes some tens of milliseconds.
const Deadline = 5 * time.Second

// within returns the host with reads and devices that answer, if only that
// they do not, before ctx ends.
func (h Host) within(ctx context.Context) Host {
	root := h.Root.Within(ctx)
	return Host{Root: root, Devices: boundedDevices{real: h.Devices, root: root}}
}

// boundedDevices asks devices whose driver may never answer.
type boundedDevices struct {
	real Devices
	root *hostfs.Root // of Within
}

func (d boundedDevices) Open(path string) Node {
	node, err := hostfs.Within(d.root, "open", path, func() (Node, error) { return d.real.Open(path), nil })
	if err != nil {
		return Node{Path: path, Err: err.Error()}
	}
	return node
}

func (d boundedDevices) ProveKVM(ctx context.Context) Proof {
	proof, err := hostfs.Within(d.root, "prove", kvmPath, func() (Proof, error) { return d.real.ProveKVM(ctx), nil })
	if err != nil {
		return Proof{Node: Node{Path: kvmPath, Err: err.Error()}, Step: StepOpen, Err: err.Error()}
	}
	return proof
}
