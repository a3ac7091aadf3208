package vm_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

var record = flag.Bool("record", false, "write what the guests captured to test/hosts")

// shape is a state of a machine, and what check must say of it.
type shape struct {
	name string // of its recording; empty: not one for test/hosts
	make string // script that brings the machine into this state
	exit int
	want map[string]kvmcheck.Reason // by area/check; "" is ready
}

func TestCheckOnMachinesWithKVM(t *testing.T) {
	machine := vm.Start(t, vm.KVM())
	checkShapes(t, machine, []shape{
		{
			name: "vm-no-module",
			make: "modprobe tun; modprobe vhost_net; modprobe -r kvm_amd",
			exit: 1,
			want: map[string]kvmcheck.Reason{
				"cpu/virtualization": "",
				"kvm/module":         kvmcheck.ModuleNotLoaded,
				"kvm/device":         kvmcheck.DeviceMissing,
				"devices/tun":        "",
				"devices/vhost-net":  "",
			},
		},
		{
			name: "vm-no-hugepages",
			make: "modprobe kvm_amd nested=0",
			want: map[string]kvmcheck.Reason{
				"kvm/module":           "",
				"kvm/device":           "",
				"kvm/nested":           kvmcheck.NestedDisabled,
				"memory/hugepages-2Mi": kvmcheck.NoHugepages,
				"iommu/firmware":       kvmcheck.IOMMUNotInFirmware,
				"iommu/kernel":         kvmcheck.IOMMUAbsent,
				"sriov/capability":     kvmcheck.NoSRIOVDevice,
			},
		},
		{
			name: "vm-kvm",
			make: "modprobe -r kvm_amd; modprobe kvm_amd; echo 64 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
			want: map[string]kvmcheck.Reason{
				"cpu/virtualization":   "",
				"kvm/module":           "",
				"kvm/device":           "",
				"kvm/nested":           "",
				"memory/hugepages-2Mi": "",
				"cgroup/controllers":   "",
			},
		},
		{
			make: "modprobe -r vhost_net; rm -f /dev/vhost-net; modprobe vhost_vsock",
			exit: 1,
			want: map[string]kvmcheck.Reason{"kvm/device": "", "devices/vhost-net": kvmcheck.DeviceMissing, "devices/vhost-vsock": ""},
		},
		{
			make: "modprobe vhost_net; modprobe -r vhost_vsock; rm -f /dev/vhost-vsock",
			want: map[string]kvmcheck.Reason{"devices/vhost-net": "", "devices/vhost-vsock": kvmcheck.DeviceMissing},
		},
	})
}

func TestCheckOnMachineWithIOMMUOff(t *testing.T) {
	profile := vm.SRIOV()
	profile.Append = append(profile.Append, "intel_iommu=off")
	machine := vm.Start(t, profile)
	checkShapes(t, machine, []shape{{
		name: "vm-iommu-off",
		make: "modprobe tun; modprobe vhost_net; echo 2 > /sys/class/net/eth0/device/sriov_numvfs",
		want: map[string]kvmcheck.Reason{
			"kvm/device":       "",
			"iommu/firmware":   "",
			"iommu/kernel":     kvmcheck.IOMMUDisabled,
			"iommu/interrupts": "", // remapped although DMA is not
			"vfio/driver":      "",
			"vfio/groups":      kvmcheck.IOMMUDisabled,
			"sriov/capability": "",
		},
	}})
}

func TestCheckOnMachineWithTwoNUMANodes(t *testing.T) {
	machine := vm.Start(t, vm.NUMA())
	checkShapes(t, machine, []shape{{
		name: "vm-numa-sriov",
		make: `modprobe tun; modprobe vhost_net
			echo 7 > /sys/class/net/eth0/device/sriov_numvfs
			echo 3 > /sys/class/net/eth1/device/sriov_numvfs
			echo 32 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages`,
		want: map[string]kvmcheck.Reason{
			"kvm/device":           "",
			"memory/hugepages-2Mi": "",
			"memory/hugepages-1Gi": "",
			"memory/balance":       kvmcheck.HugepagesLopsided,
			"memory/numa":          "",
			"iommu/firmware":       "",
			"iommu/kernel":         "",
			"iommu/interrupts":     "",
			"vfio/driver":          "",
			"vfio/groups":          "",
			"sriov/capability":     "",
		},
	}})
	report := checkGuest(t, machine, 0)
	pfs := report.Facts.SRIOV.PFs.Value
	if len(pfs) != 2 || len(pfs[0].VFs) != 7 || len(pfs[1].VFs) != 3 || *pfs[0].NUMANode != 0 || *pfs[1].NUMANode != 1 {
		t.Errorf("want 7 VFs on node 0 and 3 on node 1, have %+v", pfs)
	}
	for _, vf := range pfs[0].VFs {
		if vf.IOMMUGroup == nil {
			t.Errorf("VF %s has no IOMMU group", vf.Address)
		}
	}
	numa := report.Facts.Memory.NUMA.Value
	if len(numa) != 2 || numa[1].Hugepages.Value[0].Total.Value != 32 || numa[0].Hugepages.Value[0].Total.Value != 0 {
		t.Errorf("want 32 huge pages of 2 MiB on node 1 only, have %+v", numa)
	}
}

// checkShapes brings a machine from shape to shape and compares, in each, what
// check says in the guest with what is wanted and with what its recording says.
// It returns what check said last.
func checkShapes(t *testing.T, machine *vm.Machine, shapes []shape) (report kvmcheck.Report) {
	t.Helper()
	if err := hosttest.Build(filepath.Join(machine.Share, "nodeagent"), "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
	for _, shape := range shapes {
		machine.Sh(t, shape.make)
		report = checkGuest(t, machine, shape.exit)
		got := make(map[string]kvmcheck.Reason)
		for _, finding := range report.Findings {
			key := finding.Area + "/" + finding.Check
			if _, asked := shape.want[key]; asked {
				got[key] = finding.Reason
			}
		}
		if diff := cmp.Diff(shape.want, got); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", shape.make, diff)
		}
		machine.Sh(t, "./nodeagent capture --mask host.tar.gz")
		compareReplay(t, machine, report)
		if *record && shape.name != "" {
			saveRecording(t, machine, shape.name)
		}
	}
	return report
}

// checkGuest runs check in the guest.
func checkGuest(t *testing.T, machine *vm.Machine, exit int) kvmcheck.Report {
	t.Helper()
	result, err := machine.Exec(t.Context(), "./nodeagent check -o json")
	if err != nil {
		t.Fatal(err)
	}
	if result.Code != exit {
		t.Errorf("check: exit status %d, want %d\n%s", result.Code, exit, result.Stderr)
	}
	var report kvmcheck.Report
	if err := json.Unmarshal([]byte(result.Stdout), &report); err != nil {
		t.Fatalf("check -o json: %v\n%s", err, result.Stdout)
	}
	return report
}

// compareReplay replays the guest's recording in the guest, where nothing of
// it can come from the machine by chance: it is checked on the host instead.
func compareReplay(t *testing.T, machine *vm.Machine, live kvmcheck.Report) {
	t.Helper()
	replayed := hosttest.Report(t, filepath.Join(machine.Share, "host.tar.gz"))
	if diff := cmp.Diff(live.Findings, replayed.Findings); diff != "" {
		t.Errorf("the recording says something else than the machine (-machine +recording):\n%s", diff)
	}
}

func saveRecording(t *testing.T, machine *vm.Machine, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(machine.Share, "host.tar.gz"))
	if err == nil {
		err = os.WriteFile(filepath.Join(hosttest.Root(), "test", "hosts", name+".tar.gz"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
