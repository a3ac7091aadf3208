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

func (d boundedDevices) ReadMSR(cpu int, register uint32) (uint64, error) {
	return hostfs.Within(d.root, "read", msrPath(cpu), func() (uint64, error) { return d.real.ReadMSR(cpu, register) })
}

func (d boundedDevices) ReadCPUID(cpu int, leaf uint32) (CPUIDRegisters, error) {
	return hostfs.Within(d.root, "read", cpuidPath(cpu), func() (CPUIDRegisters, error) { return d.real.ReadCPUID(cpu, leaf) })
}

func (d boundedDevices) SurveyKVM() Survey {
	survey, err := hostfs.Within(d.root, "survey", kvmPath, func() (Survey, error) { return d.real.SurveyKVM(), nil })
	if err != nil {
		return Survey{
			Node:         Node{Path: kvmPath, Err: err.Error()},
			Capabilities: unknown[[]Capability](kvmPath, err), CPUID: unknown[[]CPUID](kvmPath, err),
			MSRs: unknown[[]MSR](kvmPath, err), TSCKHz: unknown[uint64](kvmPath, err),
		}
	}
	return survey
}
