package vm_test

import (
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/vm"
)

// TestKernelClassOnAnotherKernel runs the tests of what package qemu reads
// itself where control groups are of version 2, with pressure, and taps are
// devices that the kernel makes nodes for.
func TestKernelClassOnAnotherKernel(t *testing.T) {
	profile := vm.KVM()
	profile.Modules = append(profile.Modules, "tun", "veth", "macvtap")
	machine := vm.Start(t, profile)
	const tests = "TestAQuotaOfTheKernels TestEveryNumberIsTheKernels TestThreadsThatComeAndGo TestARealTap TestARealMacvtap"
	out := runTests(t, machine, "pkg/qemu", "^("+strings.ReplaceAll(tests, " ", "|")+")$", "NODEAGENT_TEST_REQUIRE=libvirt")
	for test := range strings.FieldsSeq(tests) {
		if !strings.Contains(out, "--- PASS: "+test+" ") {
			t.Errorf("%s did not pass in the guest:\n%s", test, out)
		}
	}
}
