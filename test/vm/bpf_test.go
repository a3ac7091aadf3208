package vm_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

// TestBPFOnAnotherKernel runs the tests of internal/bpf on the guest's kernel:
// where its structures have their fields is settled there.
func TestBPFOnAnotherKernel(t *testing.T) {
	machine := vm.Start(t, vm.KVM())
	binary := filepath.Join(t.TempDir(), "bpf.test")
	build := exec.Command("go", "test", "-c", "-o", binary, "./internal/bpf")
	build.Dir, build.Env = hosttest.Root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	t.Chdir(t.TempDir())
	const tests = "TestBuckets TestDelayIsWhatTheKernelCounts TestPlaceIsEmptyForTheNext TestReasons TestReasonsOfTheMachine TestKilledAgentLeavesNothing TestThreadsAreWhatProcTells TestManyThreads TestTellsAnywhere"
	var stdout, stderr bytes.Buffer
	code, err := machine.RunBinary(t.Context(), []string{binary, "-test.v", "-test.run", "^(" + strings.ReplaceAll(tests, " ", "|") + ")$"}, &stdout, &stderr)
	if err != nil || code != 0 {
		t.Errorf("exit status %d, %v", code, err)
	}
	for test := range strings.FieldsSeq(tests) {
		if !strings.Contains(stdout.String(), "--- PASS: "+test+" ") {
			t.Errorf("%s did not pass in the guest", test)
		}
	}
	t.Logf("Linux %s:\n%s%s", machine.Release, &stdout, &stderr)
}
