package nodestack

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// known is a reading that nobody asks the source of.
func known[T any](value T) kvmcheck.Reading[T] { return kvmcheck.Known("/source", value) }

func failed[T any]() kvmcheck.Reading[T] {
	return kvmcheck.NotKnown[T]("/broken", errors.New("input/output error"))
}

// withKVM is a host on which VMs run.
func withKVM() kvmcheck.Facts {
	opened := func(name string) kvmcheck.Node { return kvmcheck.Node{Path: name, State: kvmcheck.NodeOpened} }
	var facts kvmcheck.Facts
	facts.KVM.Proof = kvmcheck.Proof{Node: opened("/dev/kvm"), APIVersion: 12, Step: kvmcheck.StepDone}
	facts.Devices.Tun, facts.Devices.VhostNet = opened("/dev/net/tun"), opened("/dev/vhost-net")
	return facts
}

// healthy is a node on which everything is ready for KubeVirt.
func healthy() Facts {
	disk := Space{
		Path: "/var/lib/kubelet", Mount: known(Mount{Point: "/", Type: "xfs", Shared: true}),
		Volume: known(Volume{Path: "/var/lib/kubelet", Bytes: 100 << 30, FreeBytes: 55 << 30, Inodes: 1000, FreeInodes: 900}),
	}
	modules := make(map[string]kvmcheck.Reading[ModuleState])
	for _, module := range storageModules {
		modules[module] = known(ModuleAvailable)
	}
	program := known(Program{Executable: true, Version: "v1.2.3"})
	return Facts{
		Daemons: known([]Daemon{{Name: "kubelet"}, {Name: "iscsid"}, {Name: "chronyd"}}),
		Kubelet: KubeletFacts{
			Running: known(true), RootDir: "/var/lib/kubelet", Leftover: known(true),
			Config: known(KubeletConfig{CgroupDriver: "systemd"}), Mount: known(Mount{Point: "/", Type: "xfs", Shared: true}),
			Registration: known(true), PodResources: known(true),
			Devices: known(map[string]int{"devices.kubevirt.io/kvm": 1000, "devices.kubevirt.io/tun": 1000, "devices.kubevirt.io/vhost-net": 1000}),
		},
		Runtimes: []Runtime{{
			Socket: "/run/containerd/containerd.sock", State: RuntimeAnswered, Name: "containerd", Version: "2.1.4",
			Status: known(RuntimeStatus{
				Conditions: []Condition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}},
				Settings:   RuntimeSettings{CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"}},
			}),
			CgroupDriver: known(CgroupDriver{Name: "systemd", Told: true}),
			ImageStore:   known("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"),
		}},
		CNI: CNIFacts{
			ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}, Certain: true,
			Files:    known([]string{"00-multus.conf"}),
			Network:  known(Network{File: "/etc/cni/net.d/00-multus.conf", Name: "multus", Plugins: []Plugin{{Type: "multus-shim"}}}),
			Binaries: known([]string{"bridge", "multus-shim"}),
			Programs: map[string]kvmcheck.Reading[Program]{"bridge": program, "multus-shim": program},
		},
		Storage: StorageFacts{
			Modules: modules, Initiator: known(true), ISCSIUnit: known(true), MountNFS: known(true),
			Multipath: known(Multipath{}), Kubelet: disk, Images: disk,
		},
		Domains: known([]Domain{{Name: "vm", Agent: "connected"}}),
		Clock:   known(Clock{Synchronised: true, MaxErrorUsec: 23_000}),
	}
}

func TestHealthyNodeIsReadyThroughout(t *testing.T) {
	findings := Evaluate(healthy(), withKVM(), kvmcheck.Profile{})
	if len(findings) < len(Checks()) {
		t.Errorf("%d findings for %d checks", len(findings), len(Checks()))
	}
	for _, finding := range findings {
		if finding.Status != kvmcheck.Ready || finding.Reason != "" || finding.Remedy != "" || finding.Message == "" {
			t.Errorf("%+v", finding)
		}
	}
}

func TestZeroFactsAreUndecidedThroughout(t *testing.T) {
	for _, finding := range Evaluate(Facts{}, kvmcheck.Facts{}, kvmcheck.Profile{}) {
		if finding.Status != kvmcheck.Unknown {
			t.Errorf("%s is %s without any fact", finding.Key(), finding.Status)
		}
	}
	running := Facts{Kubelet: KubeletFacts{Running: known(true)}}
	for _, finding := range Evaluate(running, kvmcheck.Facts{}, kvmcheck.Profile{}) {
		if finding.Status != kvmcheck.Unknown && finding.Key() != "kubelet/node" {
			t.Errorf("%s is %s with a kubelet and no other fact", finding.Key(), finding.Status)
		}
	}
}

// TestHostWithoutKubeletIsLeftAlone holds that a libvirt host is told one
// thing about Kubernetes, and nothing that changes its verdict.
func TestHostWithoutKubeletIsLeftAlone(t *testing.T) {
	facts := Facts{
		Daemons: known([]Daemon{}), Domains: known([]Domain{}), Clock: known(Clock{}),
		Kubelet: KubeletFacts{Running: known(false), Leftover: known(false)},
	}
	findings := Evaluate(facts, kvmcheck.Facts{}, kvmcheck.Profile{})
	var keys []string
	for _, finding := range findings {
		keys = append(keys, finding.Key())
		if finding.Level != kvmcheck.Optional {
			t.Errorf("%s is %s", finding.Key(), finding.Level)
		}
	}
	if diff := cmp.Diff([]string{"kubelet/node", "time/sync"}, keys); diff != "" {
		t.Error(diff)
	}
	if verdict := kvmcheck.Verdict(findings); verdict != kvmcheck.Ready {
		t.Error(verdict)
	}
}

func TestOldRecordingSaysOneThing(t *testing.T) {
	findings := Evaluate(Facts{NotRecorded: true}, kvmcheck.Facts{}, kvmcheck.Profile{})
	if len(findings) != 1 || findings[0].Status != kvmcheck.Unknown || findings[0].Level != kvmcheck.Optional {
		t.Errorf("%+v", findings)
	}
}

type causeTest struct {
	change func(*Facts, *kvmcheck.Facts)
	check  string
	status kvmcheck.Status
	reason kvmcheck.Reason
}

const (
	ready    = kvmcheck.Ready
	notReady = kvmcheck.NotReady
	unknown  = kvmcheck.Unknown
)

// on changes the stack's facts only.
func on(change func(*Facts)) func(*Facts, *kvmcheck.Facts) {
	return func(facts *Facts, _ *kvmcheck.Facts) { change(facts) }
}

func runCauses(t *testing.T, tests map[string]causeTest) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			facts, host := healthy(), withKVM()
			test.change(&facts, &host)
			findings := Evaluate(facts, host, kvmcheck.Profile{})
			i := slices.IndexFunc(findings, func(f finding) bool { return f.Key() == test.check })
			if i < 0 {
				t.Fatalf("no finding %s", test.check)
			}
			f := findings[i]
			if f.Status != test.status || f.Reason != test.reason {
				t.Errorf("got %s %s (%s), want %s %s", f.Status, f.Reason, f.Message, test.status, test.reason)
			}
			if f.Reason != "" && f.Reason != kvmcheck.ReadFailed && !slices.ContainsFunc(Checks(), func(c kvmcheck.Check) bool {
				return c.Covers(f) && slices.Contains(c.Reasons, f.Reason)
			}) {
				t.Errorf("%s gives %s, which is not among its reasons in Checks", f.Key(), f.Reason)
			}
			if f.Status != ready && (f.Remedy == "" || f.Message == "") {
				t.Errorf("no remedy or no message: %+v", f)
			}
		})
	}
}

func TestEachCauseOfKubeletAndRuntimeHasItsReason(t *testing.T) {
	runtime := func(change func(*Runtime)) func(*Facts, *kvmcheck.Facts) {
		return on(func(f *Facts) { change(&f.Runtimes[0]) })
	}
	condition := func(i int) func(*Facts, *kvmcheck.Facts) {
		return runtime(func(r *Runtime) { r.Status.Value.Conditions[i].Status = false })
	}
	untold := func(name, kubelet string) func(*Facts, *kvmcheck.Facts) {
		return on(func(f *Facts) {
			f.Runtimes[0].CgroupDriver = known(CgroupDriver{Name: name})
			f.Kubelet.Config.Value.CgroupDriver = kubelet
		})
	}
	runCauses(t, map[string]causeTest{
		"the kubelet has stopped":   {on(func(f *Facts) { f.Kubelet.Running = known(false) }), "kubelet/node", notReady, KubeletNotRunning},
		"there never was a kubelet": {on(func(f *Facts) { f.Kubelet.Running, f.Kubelet.Leftover = known(false), known(false) }), "kubelet/node", notReady, NoKubelet},
		"processes are hidden":      {on(func(f *Facts) { f.Kubelet.Running = failed[bool]() }), "runtime/cri", unknown, kvmcheck.ReadFailed},
		"the root is private":       {on(func(f *Facts) { f.Kubelet.Mount.Value.Shared = false }), "kubelet/mount-propagation", notReady, MountNotShared},
		"no registration socket":    {on(func(f *Facts) { f.Kubelet.Registration = known(false) }), "kubelet/registration", notReady, KubeletSocketMissing},
		"KVM is not offered":        {on(func(f *Facts) { f.Kubelet.Devices = known(map[string]int{}) }), "kubelet/device-kvm", notReady, DeviceNotOffered},
		"no device is healthy":      {on(func(f *Facts) { f.Kubelet.Devices.Value["devices.kubevirt.io/tun"] = 0 }), "kubelet/device-tun", notReady, DeviceNotOffered},
		"offers cannot be read":     {on(func(f *Facts) { f.Kubelet.Devices = failed[map[string]int]() }), "kubelet/device-kvm", unknown, kvmcheck.ReadFailed},
		"KVM is offered in vain": {func(_ *Facts, h *kvmcheck.Facts) {
			h.KVM.Proof = kvmcheck.Proof{Node: kvmcheck.Node{State: kvmcheck.NodeAbsent}}
		}, "kubelet/device-kvm", notReady, DeviceOfferedInVain},
		"vhost-net offered in vain": {func(_ *Facts, h *kvmcheck.Facts) { h.Devices.VhostNet.State = kvmcheck.NodeAbsent }, "kubelet/device-vhost-net", notReady, DeviceOfferedInVain},
		"tun is forbidden to us only": {func(_ *Facts, h *kvmcheck.Facts) {
			h.Devices.Tun = kvmcheck.Node{State: kvmcheck.NodeRefused, Errno: "EACCES"}
		}, "kubelet/device-tun", unknown, kvmcheck.ReadFailed},
		"neither had nor offered": {func(f *Facts, h *kvmcheck.Facts) {
			f.Kubelet.Devices = known(map[string]int{})
			h.Devices.Tun.State = kvmcheck.NodeAbsent
		}, "kubelet/device-tun", notReady, DeviceNotOffered},

		"no runtime":                    {runtime(func(r *Runtime) { *r = Runtime{Socket: "/x", State: RuntimeAbsent} }), "runtime/cri", notReady, NoContainerRuntime},
		"the runtime was killed":        {runtime(func(r *Runtime) { *r = Runtime{Socket: "/x", State: RuntimeRefused} }), "runtime/cri", notReady, RuntimeNotRunning},
		"Docker's containerd":           {runtime(func(r *Runtime) { *r = Runtime{Socket: "/x", State: RuntimeNoCRI} }), "runtime/cri", notReady, CRINotServed},
		"the runtime hangs":             {runtime(func(r *Runtime) { *r = Runtime{Socket: "/x", Err: "/x: no answer"} }), "runtime/cri", unknown, kvmcheck.ReadFailed},
		"it hangs after its version":    {runtime(func(r *Runtime) { r.Status = failed[RuntimeStatus]() }), "runtime/cri", unknown, kvmcheck.ReadFailed},
		"it is not ready":               {condition(0), "runtime/cri", notReady, RuntimeNotReady},
		"its network is not ready":      {condition(1), "runtime/cri", notReady, RuntimeNetworkNotReady},
		"it has no conditions":          {runtime(func(r *Runtime) { r.Status.Value.Conditions = nil }), "runtime/cri", unknown, kvmcheck.ReadFailed},
		"the drivers differ":            {untold("cgroupfs", "systemd"), "runtime/cgroup-driver", notReady, CgroupDriverMismatch},
		"the drivers agree":             {untold("systemd", "systemd"), "runtime/cgroup-driver", ready, ""},
		"the kubelet's default differs": {untold("systemd", ""), "runtime/cgroup-driver", unknown, kvmcheck.ReadFailed},
		"the kubelet follows":           {on(func(f *Facts) { f.Kubelet.Config.Value.CgroupDriver = "cgroupfs" }), "runtime/cgroup-driver", ready, ""},
		"layers are copied":             {runtime(func(r *Runtime) { r.ImageStore = known("/x/io.containerd.snapshotter.v1.native") }), "runtime/snapshotter", notReady, SnapshotterCopies},
		"CRI-O copies layers":           {runtime(func(r *Runtime) { r.ImageStore = known("/var/lib/containers/storage/vfs-images") }), "runtime/snapshotter", notReady, SnapshotterCopies},
		"CRI-O shares layers":           {runtime(func(r *Runtime) { r.ImageStore = known("/var/lib/containers/storage/overlay-images") }), "runtime/snapshotter", ready, ""},
	})
}

func TestEachCauseOfNetworkAndStorageHasItsReason(t *testing.T) {
	space := func(change func(*Space)) func(*Facts, *kvmcheck.Facts) {
		return on(func(f *Facts) { change(&f.Storage.Images) })
	}
	noNetwork := known(Network{})
	runCauses(t, map[string]causeTest{
		"no default network":         {on(func(f *Facts) { f.CNI.Network = noNetwork }), "cni/network", notReady, NoDefaultNetwork},
		"none where it is customary": {on(func(f *Facts) { f.CNI.Network, f.CNI.Certain = noNetwork, false }), "cni/network", unknown, kvmcheck.ReadFailed},
		"its plugin is missing":      {on(func(f *Facts) { delete(f.CNI.Programs, "multus-shim") }), "cni/plugins", notReady, CNIPluginMissing},
		"perhaps it is elsewhere":    {on(func(f *Facts) { delete(f.CNI.Programs, "multus-shim"); f.CNI.Certain = false }), "cni/plugins", unknown, kvmcheck.ReadFailed},
		"its plugin cannot run":      {on(func(f *Facts) { f.CNI.Programs["multus-shim"] = known(Program{}) }), "cni/plugins", notReady, CNIPluginNotExecutable},
		"its plugin cannot be seen":  {on(func(f *Facts) { f.CNI.Programs["multus-shim"] = failed[Program]() }), "cni/plugins", unknown, kvmcheck.ReadFailed},
		"no plugin for VMs":          {on(func(f *Facts) { delete(f.CNI.Programs, "bridge") }), "cni/vm-plugins", notReady, NoVMNetworkPlugin},
		"Multus came second":         {on(func(f *Facts) { f.CNI.Network.Value.Plugins[0].Type = "bridge" }), "cni/multus", notReady, MultusNotDefault},
		"no Multus": {on(func(f *Facts) {
			f.CNI.Network.Value.Plugins[0].Type = "bridge"
			delete(f.CNI.Programs, "multus-shim")
		}), "cni/multus", notReady, NoMultus},

		"a cloud kernel without rbd": {on(func(f *Facts) { f.Storage.Modules["rbd"] = known(ModuleMissing) }), "storage/ceph", notReady, StorageModuleMissing},
		"modules cannot be listed":   {on(func(f *Facts) { f.Storage.Modules["rbd"] = failed[ModuleState]() }), "storage/ceph", unknown, kvmcheck.ReadFailed},
		"open-iscsi is missing":      {on(func(f *Facts) { f.Storage.Initiator = known(false) }), "storage/iscsi", notReady, StorageToolMissing},
		"iscsid does not run":        {on(func(f *Facts) { f.Daemons, f.Storage.ISCSIUnit = known([]Daemon{}), known(false) }), "storage/iscsi", notReady, ISCSIDaemonNotRunning},
		"multipathd takes volumes":   {on(func(f *Facts) { f.Daemons = known([]Daemon{{Name: "multipathd"}}) }), "storage/multipath", notReady, MultipathTakesVolumes},
		"multipathd is restrained": {on(func(f *Facts) {
			f.Daemons = known([]Daemon{{Name: "multipathd"}})
			f.Storage.Multipath = known(Multipath{Exists: true, Blacklist: true})
		}), "storage/multipath", ready, ""},
		"no mount.nfs":              {on(func(f *Facts) { f.Storage.MountNFS = known(false) }), "storage/nfs", notReady, StorageToolMissing},
		"images fill the disk":      {space(func(s *Space) { s.Volume.Value.FreeBytes = 14 << 30 }), "storage/space-images", notReady, SpaceLow},
		"few inodes are left":       {space(func(s *Space) { s.Volume.Value.FreeInodes = 49 }), "storage/space-images", notReady, InodesLow},
		"btrfs has no inode number": {space(func(s *Space) { s.Volume.Value.Inodes, s.Volume.Value.FreeInodes = 0, 0 }), "storage/space-images", ready, ""},
		"images in memory":          {space(func(s *Space) { s.Mount.Value.Type = "tmpfs" }), "storage/space-images", notReady, FileSystemUnsuitable},
		"a file system gone bad":    {space(func(s *Space) { s.Volume.Value.ReadOnly = true }), "storage/space-images", notReady, FileSystemUnsuitable},
		"room that nobody can tell": {space(func(s *Space) { s.Volume = failed[Volume]() }), "storage/space-images", unknown, kvmcheck.ReadFailed},

		"a VM without a channel":   {on(func(f *Facts) { f.Domains.Value[0].Agent = "" }), "guest-agent/channel", notReady, GuestAgentChannelMissing},
		"a VM without an agent":    {on(func(f *Facts) { f.Domains.Value[0].Agent = "disconnected" }), "guest-agent/channel", notReady, GuestAgentSilent},
		"VMs in pods":              {on(func(f *Facts) { f.Domains = known([]Domain{}) }), "guest-agent/channel", unknown, GuestAgentInPods},
		"the clock runs free":      {on(func(f *Facts) { f.Clock, f.Daemons = known(Clock{}), known([]Daemon{}) }), "time/sync", notReady, ClockNotSynchronised},
		"chronyd keeps it silent":  {on(func(f *Facts) { f.Clock = known(Clock{}) }), "time/sync", unknown, ClockNotSynchronised},
		"the clock cannot be read": {on(func(f *Facts) { f.Clock = failed[Clock]() }), "time/sync", unknown, kvmcheck.ReadFailed},
	})
}

// TestEveryFindingIsACheckInItsPlace holds the catalogue and the evaluation together.
func TestEveryFindingIsACheckInItsPlace(t *testing.T) {
	seen := make(map[int]bool)
	for name, facts := range map[string]Facts{"healthy": healthy(), "nothing known": {}} {
		last := -1
		for _, finding := range Evaluate(facts, kvmcheck.Facts{}, kvmcheck.Profile{}) {
			place := slices.IndexFunc(Checks(), func(c kvmcheck.Check) bool {
				ok, err := path.Match(c.Area+"/"+c.Name, finding.Key())
				return ok && err == nil
			})
			if place < last || place < 0 {
				t.Errorf("%s: finding %s is no check, or out of order", name, finding.Key())
			}
			last = max(last, place)
			seen[place] = true
		}
	}
	if len(seen) != len(Checks()) {
		t.Errorf("%d of %d checks have a finding", len(seen), len(Checks()))
	}
}

func TestEveryReasonIsExplainedOnce(t *testing.T) {
	ofKVM := make(map[kvmcheck.Reason]bool)
	for _, cause := range kvmcheck.Causes() {
		ofKVM[cause.Reason] = true
	}
	seen := make(map[kvmcheck.Reason]bool)
	for _, cause := range Causes() {
		if seen[cause.Reason] || ofKVM[cause.Reason] || !strings.HasSuffix(cause.Meaning, ".") || len(cause.Fixes) == 0 {
			t.Errorf("%s: twice, taken, or incomplete", cause.Reason)
		}
		seen[cause.Reason] = true
	}
	for _, reason := range declaredReasons(t) {
		if !seen[reason] {
			t.Errorf("%s is not explained", reason)
		}
		delete(seen, reason)
	}
	for reason := range seen {
		t.Errorf("%s is explained, and not declared", reason)
	}
}

func TestMessagesDoNotTrembleWithTheReadings(t *testing.T) {
	before := healthy()
	after := healthy()
	after.Clock.Value.MaxErrorUsec = 61_000
	after.Storage.Images.Volume.Value.FreeBytes -= 3 << 30
	after.Storage.Images.Volume.Value.FreeInodes -= 7
	if diff := cmp.Diff(Evaluate(before, withKVM(), kvmcheck.Profile{}), Evaluate(after, withKVM(), kvmcheck.Profile{})); diff != "" {
		t.Error(diff)
	}
}
