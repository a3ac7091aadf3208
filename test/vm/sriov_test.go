package vm_test

import (
	"bytes"
	"flag"
	"path/filepath"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

var pattern = flag.String("kernel", "^TestKernel$", "which tests of package sriov run in the machine")

// sriovPF is where a machine of the profile SRIOV has its PF.
const sriovPF = "0000:01:00.0"

// runTests builds a package's tests and runs those of a pattern in a machine.
func runTests(t *testing.T, machine *vm.Machine, pkg, pattern string, env ...string) string {
	t.Helper()
	name := filepath.Base(pkg) + ".test"
	if err := hosttest.BuildTest(filepath.Join(machine.Share, name), "./"+pkg); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := machine.Run(t.Context(), vm.Command{
		Argv: append([]string{"./" + name, "-test.v", "-test.timeout=8m"}, "-test.run="+pattern),
		Env:  env, Stdout: &out, Stderr: &out,
	})
	if err != nil || code != 0 {
		t.Fatalf("exit status %d, %v\n%s", code, err, &out)
	}
	return out.String()
}

// TestVFsOnTheKernel runs the suite of package sriov, which its fake passes on
// every machine, on a card.
func TestVFsOnTheKernel(t *testing.T) {
	machine := vm.Start(t, vm.SRIOV())
	machine.Sh(t, "mkdir -p /var/lib; mount -t tmpfs tmpfs /tmp 2>/dev/null || true")
	t.Log(runTests(t, machine, "pkg/sriov", *pattern, "NODEAGENT_SRIOV_PF="+sriovPF))
}
