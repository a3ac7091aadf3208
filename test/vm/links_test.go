package vm_test

import (
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/vm"
)

// TestLinksOnTheKernel runs the suite of package hostnet, which its fake passes
// on every machine, on a kernel that has VLANs, VLAN filtering and bonds.
func TestLinksOnTheKernel(t *testing.T) {
	machine := vm.Start(t, vm.NUMA())
	machine.Sh(t, "/usr/sbin/ip link set eth0 up; echo 7 > /sys/class/net/eth0/device/sriov_numvfs")
	out := runTests(t, machine, "pkg/hostnet", "^(TestStagesAndBack|TestRandomWalk|TestVFCountersOnTheKernel)$/^kernel$", "NODEAGENT_TEST_REQUIRE=netns", "NODEAGENT_HOSTNET_PF=eth0")
	for _, last := range []string{"--- PASS: TestStagesAndBack/kernel/18 ", "--- PASS: TestRandomWalk/kernel/1 ", "--- PASS: TestVFCountersOnTheKernel "} {
		if !strings.Contains(out, last) {
			t.Errorf("no %q: this kernel does not have all kinds of links\n%s", last, out)
		}
	}
}
