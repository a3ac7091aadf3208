package kvmcheck

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// Host is what Collect reads: files, and what device nodes answer.
type Host struct {
	Root    *hostfs.Root
	Devices Devices
}

// Open returns the host at a root: on a real file system its devices are
// asked, in a recording their recorded answers are replayed.
func Open(root *hostfs.Root) (Host, error) {
	manifest := root.Recording()
	if manifest == nil {
		return Host{Root: root, Devices: hostDevices{root}}, nil
	}
	devices, err := parseAnswers(manifest.Devices)
	if err != nil {
		return Host{}, err
	}
	return Host{Root: root, Devices: devices}, nil
}

// Collect reads every fact within [Deadline]. It never fails as a whole: what
// cannot be read, or does not answer in time, is a fact that says so.
func Collect(ctx context.Context, host Host) Facts {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	return collect(ctx, host.within(ctx))
}

func collect(ctx context.Context, host Host) Facts {
	root := host.Root
	arch, kernel := platform(root)
	survey := host.Devices.SurveyKVM()
	facts := Facts{
		Host:        HostFacts{Arch: arch, Kernel: kernel, Product: collectProduct(root)},
		CPU:         CPUFacts{Info: collectCPU(root)},
		KVM:         collectKVM(ctx, host),
		Survey:      survey,
		Fingerprint: NewFingerprint(survey),
		Devices: DeviceFacts{
			Tun:        host.Devices.Open("/dev/net/tun"),
			VhostNet:   host.Devices.Open("/dev/vhost-net"),
			VhostVsock: host.Devices.Open("/dev/vhost-vsock"),
		},
		Memory: collectMemory(root),
		IOMMU:  collectIOMMU(root),
		VFIO:   collectVFIO(root),
		SRIOV:  collectSRIOV(root),
		Cgroup: collectCgroup(root),
		PCI:    PCIInventory{Devices: collectPCI(root)},

		Time:   collectTime(root),
		Safety: collectSafety(root),
	}
	facts.VFIO.Candidates = findCandidates(facts)
	facts.Firmware = collectFirmware(host, facts)
	facts.Confidential = collectConfidential(host, facts)
	return facts
}

// platform returns GOARCH and the kernel release, of a recording the recorded ones.
func platform(root *hostfs.Root) (arch, kernel string) {
	if manifest := root.Recording(); manifest != nil {
		return manifest.Arch, manifest.Kernel
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return runtime.GOARCH, "" // cannot fail on a valid pointer
	}
	return runtime.GOARCH, unix.ByteSliceToString(name.Release[:])
}

func collectCPU(root *hostfs.Root) Reading[CPUInfo] {
	const source = "/proc/cpuinfo"
	data, err := root.ReadFile(source)
	if err != nil {
		return unknown[CPUInfo](source, err)
	}
	info, err := parseCPUInfo(data)
	return reading(source, info, err)
}

func collectSRIOV(root *hostfs.Root) SRIOVFacts {
	const source = "/sys/bus/pci/devices"
	pfs, err := sriov.PFs(root)
	if err != nil && len(pfs) == 0 {
		return SRIOVFacts{PFs: unknown[[]sriov.PF](source, err)}
	}
	facts := SRIOVFacts{PFs: known(source, pfs)}
	if err != nil {
		facts.PFs.Err = explain(source, err) // the PFs that could be read are still true
	}
	return facts
}

// Capture collects facts and returns them with everything that was read, for
// [Recorded.WriteArchive].
func Capture(ctx context.Context, host Host) (Facts, *Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	host = host.within(ctx)
	root, recorder := host.Root.Record()
	devices := &recordingDevices{real: host.Devices}
	facts := collect(ctx, Host{Root: root, Devices: devices})
	recordInventory(root)
	data, err := json.Marshal(devices.answers)
	if err != nil {
		return facts, nil, fmt.Errorf("record the device answers: %w", err)
	}
	manifest := hostfs.Manifest{Arch: facts.Host.Arch, Kernel: facts.Host.Kernel, Devices: data}
	return facts, &Recorded{Manifest: manifest, Root: root, Recorder: recorder}, nil
}

// Recorded is a host as it was read; set the manifest's free fields before it is written.
type Recorded struct {
	Manifest hostfs.Manifest
	Root     *hostfs.Root // what is read through it is recorded too
	*hostfs.Recorder
}
