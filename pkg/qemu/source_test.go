package qemu

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// machine is what the monitor class tells of a running machine; n tells its
// readings apart. Without the job lock, libvirt tells CPUs only.
func machine(n uint64, locked bool) VM {
	vm := VM{UUID: "u", CPU: CPU{Time: Some(n)}, VCPUs: []VCPU{{Time: Some(n)}}}
	vm.Memory.Current = Some(n)
	if locked {
		vm.Memory.Resident = Some(n)
		vm.Blocks = []Block{{Device: "vda", Capacity: Some(n)}}
	}
	return vm
}

func TestBusyMachineKeepsItsNumbersForOneReading(t *testing.T) {
	off := VM{UUID: "u"}
	for name, test := range map[string]struct {
		readings []VM
		want     []uint64 // resident memory in each; 0 is none
	}{
		"busy once":           {[]VM{machine(1, true), machine(2, false), machine(3, true)}, []uint64{1, 1, 3}},
		"busy for good":       {[]VM{machine(1, true), machine(2, false), machine(3, false), machine(4, false)}, []uint64{1, 1, 0, 0}},
		"busy now and again":  {[]VM{machine(1, true), machine(2, false), machine(3, true), machine(4, false)}, []uint64{1, 1, 3, 3}},
		"busy from the start": {[]VM{machine(1, false), machine(2, false), machine(3, true)}, []uint64{0, 0, 3}},
		"shut off":            {[]VM{machine(1, true), off}, []uint64{1, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var before reading
			var got []uint64
			for i, vm := range test.readings {
				now := reading{vms: []VM{vm}}
				now.fillFrom(before)
				before = now
				got = append(got, now.vms[0].Memory.Resident.V)
				if now.vms[0].CPU != vm.CPU {
					t.Errorf("reading %d: the CPU time is %v, not the fresh %v", i, now.vms[0].CPU, vm.CPU)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNumbersAreNotCarriedToAnotherMachine(t *testing.T) {
	now := reading{vms: []VM{machine(2, false)}}
	now.vms[0].UUID = "other"
	now.fillFrom(reading{vms: []VM{machine(1, true)}})
	if now.vms[0].Memory.Resident.Set {
		t.Errorf("got %+v", now.vms[0])
	}
}
