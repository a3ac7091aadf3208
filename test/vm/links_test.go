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
	out := runTests(t, machine, "pkg/hostnet", "^(TestStagesAndBack|TestRandomWalk)$/^kernel$", "NODEAGENT_TEST_REQUIRE=netns")
	for _, last := range []string{"--- PASS: TestStagesAndBack/kernel/18 ", "--- PASS: TestRandomWalk/kernel/1 "} {
		if !strings.Contains(out, last) {
			t.Errorf("no %q: this kernel does not have all kinds of links\n%s", last, out)
		}
	}
}
