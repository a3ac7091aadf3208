package kvmcheck

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/sriov"
)

// healthy is an Intel server on which everything is ready.
func healthy() Facts {
	node := 0
	pages := func(total, free uint64) HugepagePool {
		return HugepagePool{SizeKiB: 2048, Total: known("/nr", total), Free: known("/free", free), Surplus: known("/surplus", uint64(0))}
	}
	return Facts{
		Host: HostFacts{Arch: "amd64"},
		CPU:  CPUFacts{Info: known("/proc/cpuinfo", CPUInfo{Vendor: "GenuineIntel", CPUs: 4, Extension: "vmx", Extended: 4, Flags: commonFlags(), Microcode: []CPUGroup{{0x2b, "0-3"}}})},
		KVM: KVMFacts{
			Modules: known("/sys/module", []string{"kvm", "kvm_intel"}),
			Nested:  map[string]Reading[bool]{"kvm_intel": known("/nested", true)},
			Proof:   Proof{Node: Node{Path: kvmPath, State: NodeOpened}, APIVersion: 12, Step: StepDone, Exits: 2},
		},
		Survey:      healthySurvey(),
		Fingerprint: NewFingerprint(healthySurvey()),
		Devices: DeviceFacts{
			Tun: Node{Path: "/dev/net/tun", State: NodeOpened}, VhostNet: Node{Path: "/dev/vhost-net", State: NodeOpened},
			VhostVsock: Node{Path: "/dev/vhost-vsock", State: NodeOpened},
		},
		Memory: MemoryFacts{
			Hugepages: known("/hugepages", []HugepagePool{pages(8, 4)}), NUMA: known("/node", []NUMANode{}), Policy: healthyMemoryPolicy(),
		},
		IOMMU: IOMMUFacts{
			Tables: known("/tables", []string{"DMAR"}), Units: known("/iommu", []string{"dmar0"}),
			Groups: known("/groups", []IOMMUGroup{group(1, "0000:01:10.0 vfio-pci")}), CmdLine: known("/proc/cmdline", []string{"intel_iommu=on"}),
			Remapping: RemappingFacts{Chip: known("/irq/0/chip_name", "IR-IO-APIC")},
		},
		VFIO: VFIOFacts{
			Driver: known("/vfio-pci", true), Container: known("/dev/vfio/vfio", true), IOMMUFD: known("/dev/iommu", false), NoIOMMU: known("/noiommu", false),
			Candidates: known("/groups", []Candidate{{Address: "0000:01:10.0", Kind: kindVF, Bound: true, Viable: known("/groups/1", true)}}),
		},
		SRIOV:  SRIOVFacts{PFs: known("/pci", []sriov.PF{{Address: "0000:01:00.0", TotalVFs: 7, NumVFs: 2, NUMANode: &node}})},
		Cgroup: CgroupFacts{Version: known("/cg", 2), Controllers: known("/cg", []string{"cpuset", "cpu", "io", "memory", "pids"})},

		Firmware: healthyFirmware(), Time: healthyTime(), Safety: healthySafety(), Confidential: healthyConfidential(),
	}
}

func TestHealthyHostIsReadyThroughout(t *testing.T) {
	findings := Evaluate(healthy(), Profile{})
	for _, finding := range findings {
		if finding.Status != Ready || finding.Reason != "" || finding.Remedy != "" || finding.Message == "" {
			t.Errorf("%+v", finding)
		}
	}
	if verdict := Verdict(findings); verdict != Ready {
		t.Error(verdict)
	}
}

func TestZeroFactsAreUndecidedThroughout(t *testing.T) {
	findings := Evaluate(Facts{}, Profile{})
	for _, finding := range findings {
		if finding.Status != Unknown {
			t.Errorf("%s/%s is %s without any fact", finding.Area, finding.Check, finding.Status)
		}
	}
	if verdict := Verdict(findings); verdict != Unknown {
		t.Error(verdict)
	}
}

func TestEachCauseHasItsReason(t *testing.T) {
	proof := func(p Proof) func(*Facts) {
		p.Node = Node{Path: kvmPath, State: NodeOpened}
		return func(f *Facts) { f.KVM.Proof = p }
	}
	kvmNode := func(n Node) func(*Facts) {
		n.Path = kvmPath
		return func(f *Facts) { f.KVM.Proof = Proof{Node: n, Step: StepOpen, Errno: n.Errno, Err: n.Err} }
	}
	broken := errors.New("input/output error")
	for name, test := range map[string]struct {
		change func(*Facts)
		check  string
		status Status
		reason Reason
	}{
		"no flag on bare metal": {
			func(f *Facts) { f.CPU.Info.Value = CPUInfo{CPUs: 2}; f.KVM.Proof = Proof{} }, "cpu/virtualization", NotReady, CPUFlagMissing,
		},
		"no flag inside a VM": {
			func(f *Facts) { f.CPU.Info.Value = CPUInfo{CPUs: 2, Hypervisor: true}; f.KVM.Proof = Proof{} },
			"cpu/virtualization", NotReady, NestedNotExposed,
		},
		"the flag on some CPUs only": {
			func(f *Facts) { f.CPU.Info.Value.Extended = 3 }, "cpu/virtualization", NotReady, CPUFlagPartial,
		},
		"an Arm server, before KVM has answered": {
			func(f *Facts) {
				f.Host.Arch = "arm64"
				f.CPU.Info.Value = CPUInfo{CPUs: 2}
				f.KVM.Proof = Proof{}
			}, "cpu/virtualization", Unknown, FlagUndefined,
		},
		"no module": {
			func(f *Facts) {
				f.KVM.Modules.Value = nil
				f.KVM.Proof = Proof{Node: Node{Path: kvmPath, State: NodeAbsent}}
			}, "kvm/module", NotReady, ModuleNotLoaded,
		},
		"modules cannot be listed": {
			func(f *Facts) { f.KVM.Modules = unknown[[]string]("/sys/module", broken) }, "kvm/module", Unknown, ReadFailed,
		},
		"no /dev/kvm":               {kvmNode(Node{State: NodeAbsent}), "kvm/device", NotReady, DeviceMissing},
		"/dev/kvm is forbidden":     {kvmNode(Node{State: NodeRefused, Errno: "EACCES", Err: "x"}), "kvm/device", NotReady, PermissionDenied},
		"/dev/kvm without driver":   {kvmNode(Node{State: NodeRefused, Errno: "ENODEV", Err: "x"}), "kvm/device", NotReady, DeviceUnusable},
		"/dev/kvm fails oddly":      {kvmNode(Node{State: NodeRefused, Errno: "EMFILE", Err: "x"}), "kvm/device", Unknown, DescriptorsExhausted},
		"/dev/kvm cannot be seen":   {kvmNode(Node{Err: "x"}), "kvm/device", Unknown, ReadFailed},
		"another API":               {proof(Proof{Step: StepAPIVersion, APIVersion: 11, Err: "x"}), "kvm/device", NotReady, APIVersionMismatch},
		"another hypervisor":        {proof(Proof{Step: StepCreateVM, APIVersion: 12, Errno: "EBUSY", Err: "x"}), "kvm/device", NotReady, VirtualizationInUse},
		"a policy forbids a VM":     {proof(Proof{Step: StepCreateVM, APIVersion: 12, Errno: "EPERM", Err: "x"}), "kvm/device", NotReady, PermissionDenied},
		"no memory":                 {proof(Proof{Step: StepCreateVCPU, APIVersion: 12, Errno: "ENOMEM", Err: "x"}), "kvm/device", NotReady, OutOfMemory},
		"the CPU refuses":           {proof(Proof{Step: StepRun, APIVersion: 12, Exits: 1, Err: "x"}), "kvm/device", NotReady, GuestFailed},
		"the guest hangs":           {proof(Proof{Step: StepRun, APIVersion: 12, Exits: 1, TimedOut: true, Err: "x"}), "kvm/device", Unknown, GuestTimeout},
		"no guest for the platform": {proof(Proof{Step: StepRun, APIVersion: 12, Err: "x"}), "kvm/device", Unknown, ProofNotImplemented},
		"nested is off": {
			func(f *Facts) { f.KVM.Nested["kvm_intel"] = known("/nested", false) }, "kvm/nested", NotReady, NestedDisabled,
		},
		"the other vendor's module is built in too": {
			func(f *Facts) { f.KVM.Nested["kvm_amd"] = known("/nested", false) }, "kvm/nested", Ready, "",
		},
		"nested cannot be read": {
			func(f *Facts) { f.KVM.Nested["kvm_intel"] = unknown[bool]("/nested", broken) }, "kvm/nested", Unknown, ReadFailed,
		},
		"tun is missing":         {func(f *Facts) { f.Devices.Tun.State = NodeAbsent }, "devices/tun", NotReady, DeviceMissing},
		"vhost-net is taken":     {func(f *Facts) { f.Devices.VhostNet = Node{State: NodeRefused, Errno: "EBUSY"} }, "devices/vhost-net", NotReady, DeviceBusy},
		"vhost-vsock is missing": {func(f *Facts) { f.Devices.VhostVsock.State = NodeAbsent }, "devices/vhost-vsock", NotReady, DeviceMissing},
		"vhost-vsock was not asked for": {
			func(f *Facts) { f.Devices.VhostVsock = Node{Path: "/dev/vhost-vsock"} }, "devices/vhost-vsock", Unknown, ReadFailed,
		},
		"no huge pages":      {func(f *Facts) { f.Memory.Hugepages.Value[0].Total.Value = 0 }, "memory/hugepages-2Mi", NotReady, NoHugepages},
		"no free huge pages": {func(f *Facts) { f.Memory.Hugepages.Value[0].Free.Value = 0 }, "memory/hugepages-2Mi", NotReady, NoHugepagesFree},
		"free pages unread": {
			func(f *Facts) { f.Memory.Hugepages.Value[0].Free = unknown[uint64]("/free", broken) }, "memory/hugepages-2Mi", Unknown, ReadFailed,
		},
		"no huge page sizes": {func(f *Facts) { f.Memory.Hugepages.Value = nil }, "memory/hugepages", NotReady, HugepagesUnsupported},
		"no IOMMU anywhere": {
			func(f *Facts) { f.IOMMU.Tables.Value, f.IOMMU.Groups.Value = nil, nil }, "iommu/firmware", NotReady, IOMMUNotInFirmware,
		},
		"the IOMMU is off in the kernel": {func(f *Facts) { f.IOMMU.Groups.Value = nil }, "iommu/kernel", NotReady, IOMMUDisabled},
		"an IOMMU outside ACPI":          {func(f *Facts) { f.IOMMU.Tables.Value = nil }, "iommu/firmware", Ready, ""},
		"no vfio-pci":                    {func(f *Facts) { f.VFIO.Driver.Value = false }, "vfio/driver", NotReady, ModuleNotLoaded},
		"no PF":                          {func(f *Facts) { f.SRIOV.PFs.Value = nil }, "sriov/capability", NotReady, NoSRIOVDevice},
		"a PF, and one that is unread":   {func(f *Facts) { f.SRIOV.PFs.Err = "x" }, "sriov/capability", Ready, ""},
		"no cgroups":                     {func(f *Facts) { f.Cgroup.Version.Value = 0 }, "cgroup/controllers", NotReady, CgroupNotMounted},
		"no memory controller":           {func(f *Facts) { f.Cgroup.Controllers.Value = []string{"cpu", "cpuset", "io"} }, "cgroup/controllers", NotReady, ControllerMissing},
	} {
		t.Run(name, func(t *testing.T) {
			facts := healthy()
			test.change(&facts)
			for _, finding := range Evaluate(facts, Profile{}) {
				if finding.Area+"/"+finding.Check != test.check {
					continue
				}
				declares(t, finding)
				if finding.Status != test.status || finding.Reason != test.reason {
					t.Errorf("got %s %s (%s), want %s %s", finding.Status, finding.Reason, finding.Message, test.status, test.reason)
				}
				if finding.Status == NotReady && finding.Remedy == "" {
					t.Error("no remedy")
				}
				return
			}
			t.Errorf("no finding %s", test.check)
		})
	}
}

func TestVerdictIsTheWorstOfWhatIsRequired(t *testing.T) {
	finding := func(status Status, level Level) Finding { return Finding{Status: status, Level: level} }
	for name, test := range map[string]struct {
		findings []Finding
		want     Status
	}{
		"only optional things missing": {[]Finding{finding(Ready, Required), finding(NotReady, Optional), finding(Unknown, Recommended)}, Ready},
		"one required unknown":         {[]Finding{finding(Unknown, Required), finding(Ready, Required)}, Unknown},
		"missing outweighs unknown":    {[]Finding{finding(Unknown, Required), finding(NotReady, Required)}, NotReady},
	} {
		if got := Verdict(test.findings); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}

func TestEvaluateIsPure(t *testing.T) {
	facts := healthy()
	facts.KVM.Nested = map[string]Reading[bool]{"kvm_a": known("/a", false), "kvm_b": known("/b", true), "kvm_c": known("/c", false)}
	first := Evaluate(facts, Profile{})
	for range 20 {
		if diff := cmp.Diff(first, Evaluate(facts, Profile{})); diff != "" {
			t.Fatal(diff)
		}
	}
}
