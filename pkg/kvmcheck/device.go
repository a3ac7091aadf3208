package kvmcheck

import (
	"context"
	"encoding/json"
	"fmt"
)

// Devices answers what only an open device node can tell.
type Devices interface {
	// Open opens a device node for reading and writing, and closes it.
	Open(path string) Node
	// ProveKVM runs a guest of a few instructions on /dev/kvm.
	ProveKVM(ctx context.Context) Proof
	// ReadMSR reads a model-specific register of one CPU.
	ReadMSR(cpu int, register uint32) (uint64, error)
	// ReadCPUID asks one CPU for a leaf of CPUID, untouched by the kernel.
	ReadCPUID(cpu int, leaf uint32) (CPUIDRegisters, error)
	// SurveyKVM asks /dev/kvm what it offers to VMs and their CPUs.
	SurveyKVM() Survey
}

// NodeState is how a device node answered; the zero value is that nobody can tell.
type NodeState string

// The states of a device node.
const (
	NodeUnknown NodeState = ""
	NodeAbsent  NodeState = "absent"
	NodeRefused NodeState = "refused" // it is there, and open failed
	NodeOpened  NodeState = "opened"
)

// Node is what opening a device node showed.
type Node struct {
	Path  string    `json:"path"`
	State NodeState `json:"state"`
	Errno string    `json:"errno,omitempty"` // "EACCES"
	Err   string    `json:"error,omitempty"`
}

// Step is a stage of the proof of KVM.
type Step string

// The steps of the proof, in order.
const (
	StepOpen       Step = "open"
	StepAPIVersion Step = "api-version" // KVM_GET_API_VERSION
	StepCreateVM   Step = "create-vm"   // KVM_CREATE_VM
	StepMapMemory  Step = "map-memory"  // KVM_SET_USER_MEMORY_REGION
	StepCreateVCPU Step = "create-vcpu" // KVM_CREATE_VCPU and its registers
	StepRun        Step = "run"         // KVM_RUN up to the guest's end
	StepDone       Step = "done"
)

// Proof is how far KVM went when it was asked to run a guest.
type Proof struct {
	Node       Node   `json:"node"`
	APIVersion int    `json:"apiVersion,omitempty"`
	Step       Step   `json:"step"` // the step that failed, or StepDone
	Errno      string `json:"errno,omitempty"`
	Err        string `json:"error,omitempty"`
	Exits      int    `json:"exits,omitempty"` // KVM_RUN returns until the guest's end
	TimedOut   bool   `json:"timedOut,omitempty"`
	// What KVM itself counted (KVM_GET_STATS_FD) when the guest had ended:
	// "exits" among others, without those that were zero.
	VCPUStats Reading[map[string]uint64] `json:"vcpuStats,omitzero"`
	VMStats   Reading[map[string]uint64] `json:"vmStats,omitzero"`
}

// answers is the devices' part of a recording.
type answers struct {
	Nodes map[string]Node `json:"nodes"`
	KVM   *Proof          `json:"kvm,omitempty"`
	// Registers are MSRs and CPUID leaves, by device node and number.
	Registers map[string]registerAnswer `json:"registers,omitempty"`
	// Survey is missing in recordings of agents that did not ask.
	Survey *Survey `json:"survey,omitempty"`
}

// recordedDevices replays the answers of a recording.
type recordedDevices struct{ answers answers }

func parseAnswers(data json.RawMessage) (*recordedDevices, error) {
	devices := new(recordedDevices)
	if len(data) == 0 {
		return devices, nil
	}
	if err := json.Unmarshal(data, &devices.answers); err != nil {
		return nil, fmt.Errorf("parse the recorded device answers: %w", err)
	}
	return devices, nil
}

func (d *recordedDevices) Open(path string) Node {
	if node, found := d.answers.Nodes[path]; found {
		return node
	}
	return Node{Path: path, Err: path + ": not part of this recording"}
}

func (d *recordedDevices) ProveKVM(context.Context) Proof {
	if d.answers.KVM != nil {
		return *d.answers.KVM
	}
	return Proof{Node: d.Open(kvmPath), Step: StepOpen, Err: kvmPath + ": not part of this recording"}
}

func (d *recordedDevices) SurveyKVM() Survey {
	if d.answers.Survey != nil {
		return *d.answers.Survey
	}
	if proof := d.answers.KVM; proof != nil && (proof.Node.State == NodeAbsent || proof.Node.State == NodeRefused) {
		return unaskedSurvey(proof.Node) // nobody could have asked
	}
	return unaskedSurvey(Node{Path: kvmPath, Err: kvmPath + ": not part of this recording"})
}

// recordingDevices asks real devices and keeps what they answered.
type recordingDevices struct {
	real    Devices
	answers answers
}

func (d *recordingDevices) Open(path string) Node {
	node := d.real.Open(path)
	if d.answers.Nodes == nil {
		d.answers.Nodes = make(map[string]Node)
	}
	d.answers.Nodes[path] = node
	return node
}

func (d *recordingDevices) ProveKVM(ctx context.Context) Proof {
	proof := d.real.ProveKVM(ctx)
	d.answers.KVM = &proof
	return proof
}

func (d *recordingDevices) SurveyKVM() Survey {
	survey := d.real.SurveyKVM()
	d.answers.Survey = &survey
	return survey
}
