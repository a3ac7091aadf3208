package vm_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

// Devices that share an IOMMU group: two functions of a card, and two cards on
// a conventional bus, whose bridge speaks for both.
const (
	cardNIC  = "0000:01:00.0"
	cardRNG  = "0000:01:00.1"
	busNIC   = "0000:03:01.0"
	otherNIC = "0000:03:02.0"
)

// sharedGroups adds them to a machine. All have the driver virtio-pci.
func sharedGroups(p vm.Profile) vm.Profile {
	p.QEMU = append(p.QEMU,
		"-device", "pcie-root-port,id=card,bus=pcie.0,chassis=8,slot=8,addr=8",
		"-device", "virtio-net-pci,bus=card,addr=0.0,multifunction=on",
		"-device", "virtio-rng-pci,bus=card,addr=0.1",
		"-device", "pcie-root-port,id=bus,bus=pcie.0,chassis=9,slot=9,addr=9",
		"-device", "pcie-pci-bridge,id=bridge,bus=bus",
		"-device", "virtio-net-pci,bus=bridge,addr=1",
		"-device", "virtio-net-pci,bus=bridge,addr=2",
		"-device", "nvme,bus=pcie.0,addr=a,serial=disk",
	)
	return p
}

// bindVFIO takes a device from its driver and gives it to vfio-pci.
func bindVFIO(address string) string {
	device := "/sys/bus/pci/devices/" + address
	return "echo vfio-pci > " + device + "/driver_override\n" +
		"test ! -e " + device + "/driver || echo " + address + " > " + device + "/driver/unbind\n" +
		"echo " + address + " > /sys/bus/pci/drivers_probe\n" +
		"test $(basename $(readlink " + device + "/driver)) = vfio-pci\n"
}

// unbind leaves a device without driver.
func unbind(address string) string {
	return "echo " + address + " > /sys/bus/pci/devices/" + address + "/driver/unbind\n"
}

// candidate returns what the agent knows of a device.
func candidate(t *testing.T, report kvmcheck.Report, address string) kvmcheck.Candidate {
	t.Helper()
	candidates := report.Facts.VFIO.Candidates
	i := slices.IndexFunc(candidates.Value, func(c kvmcheck.Candidate) bool { return c.Address == address })
	if i < 0 {
		t.Fatalf("%s is no candidate: %+v", address, candidates)
	}
	return candidates.Value[i]
}

// vf is the only VF that a shape has made.
func vf(t *testing.T, report kvmcheck.Report) string {
	t.Helper()
	for _, pf := range report.Facts.SRIOV.PFs.Value {
		for _, vf := range pf.VFs {
			return vf.Address
		}
	}
	t.Fatal("no VF")
	return ""
}

func message(t *testing.T, report kvmcheck.Report, key string) string {
	t.Helper()
	for _, finding := range report.Findings {
		if finding.Key() == key {
			return finding.Message
		}
	}
	t.Fatalf("no finding %s", key)
	return ""
}

// handOver does what QEMU does with a device's group, and wants the kernel's
// answer to be the same as the agent's.
func handOver(t *testing.T, machine *vm.Machine, address, want string) {
	t.Helper()
	got := strings.TrimSpace(machine.Sh(t, "./handover $(basename $(readlink /sys/bus/pci/devices/"+address+"/iommu_group))"))
	if got != want {
		t.Errorf("the kernel says of %s: %s; want %s", address, got, want)
	}
}

func buildHandOver(t *testing.T, machine *vm.Machine) {
	t.Helper()
	if err := hosttest.Build(filepath.Join(machine.Share, "handover"), "./test/vm/handover"); err != nil {
		t.Fatal(err)
	}
}

func TestCheckNamesWhatStandsInTheWayOfPassthrough(t *testing.T) {
	machine := vm.Start(t, sharedGroups(vm.NUMA()))
	buildHandOver(t, machine)
	const balance, interrupts, groups = "memory/balance", "iommu/interrupts", "vfio/groups"
	type reasons = map[string]kvmcheck.Reason

	// Huge pages on one node, nothing bound.
	report := checkShapes(t, machine, []shape{{
		make: `modprobe tun; modprobe vhost_net
			echo 1 > /sys/class/net/eth0/device/sriov_numvfs
			echo 32 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages
			echo 0 > /sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages`,
		want: reasons{balance: kvmcheck.HugepagesLopsided, interrupts: "", groups: ""},
	}})
	if got, want := message(t, report, balance), "2Mi pages are on node 1 only (node 0: 0, node 1: 32)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := message(t, report, groups), "2 of 2 candidate devices viable"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	network := vf(t, report)

	// Even pages; a VF and an NVMe disk, each alone in its group.
	report = checkShapes(t, machine, []shape{{
		make: "echo 32 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages\n" +
			bindVFIO(network) + bindVFIO("0000:00:0a.0"),
		want: reasons{balance: "", groups: ""},
	}})
	for _, address := range []string{network, "0000:00:0a.0"} {
		if c := candidate(t, report, address); !c.Bound || !c.Viable.Value || len(c.Offenders) > 0 {
			t.Errorf("got %+v", c)
		}
		handOver(t, machine, address, "handed over")
	}

	// Devices in shared groups, and how each becomes viable.
	for _, test := range []struct{ address, neighbour, free, recording string }{
		{cardNIC, cardRNG, bindVFIO(cardRNG), "vm-shared-group"},
		{busNIC, otherNIC, unbind(otherNIC), ""},
	} {
		report = checkShapes(t, machine, []shape{{name: test.recording, make: bindVFIO(test.address), want: reasons{groups: kvmcheck.GroupNotViable}}})
		if c := candidate(t, report, test.address); !slices.Equal(c.Offenders, []string{test.neighbour + " (virtio-pci)"}) {
			t.Errorf("got %+v", c)
		}
		if got := message(t, report, groups); !strings.Contains(got, test.neighbour+" (virtio-pci)") {
			t.Errorf("the neighbour is not named: %s", got)
		}
		handOver(t, machine, test.address, "the group is not viable")
		checkShapes(t, machine, []shape{{make: test.free, want: reasons{groups: ""}}})
		handOver(t, machine, test.address, "handed over")
	}
}

func TestCheckOnMachineWithoutInterruptRemapping(t *testing.T) {
	profile := vm.SRIOV()
	profile.Append = append(profile.Append, "intremap=off")
	machine := vm.Start(t, profile)
	buildHandOver(t, machine)
	report := checkShapes(t, machine, []shape{{
		name: "vm-no-remapping",
		make: "modprobe tun; modprobe vhost_net; echo 1 > /sys/class/net/eth0/device/sriov_numvfs",
		want: map[string]kvmcheck.Reason{
			"iommu/firmware":   "",
			"iommu/kernel":     "",
			"iommu/interrupts": kvmcheck.InterruptRemappingOff,
			"vfio/driver":      "",
			"vfio/groups":      "",
		},
	}})
	network := vf(t, report)
	machine.Sh(t, bindVFIO(network))
	handOver(t, machine, network, "set the container's IOMMU: operation not permitted")
}
