package vm_test

import (
	"bytes"
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

var pattern = flag.String("kernel", "^TestKernel$|^TestTrafficOnTheKernel$", "which tests of package sriov run in the machine")

// sriovPF is where a machine of the profile SRIOV has its PF.
const sriovPF = "0000:01:00.0"

// runTests builds the tests of package sriov and runs those of a pattern in a
// machine, and its benchmarks.
func runTests(t *testing.T, machine *vm.Machine, pkg, pattern string, env ...string) string {
	t.Helper()
	name := filepath.Base(pkg) + ".test"
	if err := hosttest.BuildTest(filepath.Join(machine.Share, name), "./"+pkg); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := machine.Run(t.Context(), vm.Command{
		Argv: []string{"./" + name, "-test.v", "-test.timeout=8m", "-test.run=" + pattern, "-test.bench=" + pattern, "-test.benchtime=5x"},
		Env:  env, Stdout: &out, Stderr: &out,
	})
	if err != nil || code != 0 {
		t.Fatalf("exit status %d, %v\n%s", code, err, &out)
	}
	return out.String()
}

// bootSRIOV boots a machine for tests of package sriov.
func bootSRIOV(t *testing.T, profile vm.Profile) *vm.Machine {
	t.Helper()
	machine := vm.Start(t, profile)
	machine.Sh(t, "mkdir -p /var/lib")
	return machine
}

// TestVFsOnTheKernel runs the suite of package sriov, which its fake passes on
// every machine, on a card.
func TestVFsOnTheKernel(t *testing.T) {
	machine := bootSRIOV(t, vm.SRIOV())
	t.Log(runTests(t, machine, "pkg/sriov", *pattern, "NODEAGENT_SRIOV_PF="+sriovPF))
}

// TestVFsAreMadeAgainAfterAReboot pulls the plug of a machine.
func TestVFsAreMadeAgainAfterAReboot(t *testing.T) {
	profile := vm.SRIOV()
	profile.Share = t.TempDir()
	for _, when := range []string{"before", "after"} {
		machine := bootSRIOV(t, profile)
		out := runTests(t, machine, "pkg/sriov", "^TestRebootOnTheKernel$", "NODEAGENT_SRIOV_PF="+sriovPF, "NODEAGENT_SRIOV_STATE=/share/state")
		if !strings.Contains(out, when+" the reboot") {
			t.Errorf("not %s the reboot:\n%s", when, out)
		}
	}
}

// TestApplyBesideBareWrites prints how much longer the agent takes to make VFs
// than the same writes do without it.
func TestApplyBesideBareWrites(t *testing.T) {
	machine := bootSRIOV(t, vm.SRIOV())
	out := runTests(t, machine, "pkg/sriov", "^BenchmarkApplyOnTheKernel$", "NODEAGENT_SRIOV_PF="+sriovPF)
	if !strings.Contains(out, " ratio") {
		t.Error("nothing was measured")
	}
	t.Log(out)
}

// TestVFsThatAreNotIsolated boots a machine whose slot does not keep the
// functions of a card apart (no ACS).
func TestVFsThatAreNotIsolated(t *testing.T) {
	profile := vm.SRIOV()
	for i, arg := range profile.QEMU {
		if strings.HasPrefix(arg, "pcie-root-port,") {
			profile.QEMU[i] += ",disable-acs=on"
		}
	}
	machine := bootSRIOV(t, profile)
	runTests(t, machine, "pkg/sriov", "^TestSharedGroupOnTheKernel$", "NODEAGENT_SRIOV_PF="+sriovPF, "NODEAGENT_SRIOV_SHARED=1")
}
