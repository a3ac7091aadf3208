package vm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/vm"
)

// TestFirmwareOfAMachine reads VM_CR and CPUID of a machine's CPUs through the
// msr and cpuid drivers, and does without them.
func TestFirmwareOfAMachine(t *testing.T) {
	machine := vm.Start(t, vm.KVM())
	const firmware = "firmware/virtualization"
	checkShapes(t, machine, []shape{
		{
			make: "modprobe tun; modprobe vhost_net; modprobe -r kvm_amd",
			exit: 1,
			want: map[string]kvmcheck.Reason{
				firmware: kvmcheck.ModuleNotLoaded, "cpu/virtualization": "", "kvm/device": kvmcheck.DeviceMissing,
				"machine/bare-metal": kvmcheck.RunsInVM, "safety/confinement": kvmcheck.ReadFailed,
			},
		},
		{
			make: "modprobe msr; modprobe cpuid; mount -t selinuxfs none /sys/fs/selinux", // with SELinux, without a policy
			exit: 1,
			want: map[string]kvmcheck.Reason{
				firmware: "", "kvm/device": kvmcheck.DeviceMissing,
				"time/clocksource": "", "safety/microcode": "", "safety/lockdown": "", "safety/mitigations": kvmcheck.CPUVulnerable,
				"safety/confinement": kvmcheck.VMsNotConfined, "guests/confidential": kvmcheck.ConfidentialUnsupported,
			},
		},
	})
	facts := checkGuest(t, machine, 1).Facts.Firmware
	want := []kvmcheck.CPUGroup{{Value: 0, CPUs: "0-1"}}
	if diff := cmp.Diff(want, facts.Registers.Value); diff != "" || !facts.Registers.Known {
		t.Errorf("VM_CR of TCG's CPUs: %s (-want +got)\n%s", facts.Registers.Err, diff)
	}
	if !facts.Offered.Known || !facts.Offered.Value {
		t.Errorf("CPUID should show SVM: %+v", facts.Offered)
	}
	if facts.Hypervisor.Value != (kvmcheck.Hypervisor{Name: "QEMU TCG", Depth: 1}) {
		t.Errorf("got the hypervisor %+v", facts.Hypervisor)
	}
	checkShapes(t, machine, []shape{
		{
			make: "modprobe kvm_amd; modprobe -r msr",
			want: map[string]kvmcheck.Reason{firmware: "", "kvm/device": ""},
		},
		{
			make: "echo 0 > /sys/devices/system/cpu/cpu1/online; modprobe msr",
			want: map[string]kvmcheck.Reason{firmware: "", "kvm/device": ""},
		},
	})
}
