package vm_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/vm"
)

// TestProofOfKVM lets the proof succeed and fail for real: every failure has
// its own reason.
func TestProofOfKVM(t *testing.T) {
	machine := vm.Start(t, vm.KVM())
	buildAgent(t, machine)
	t.Run("the exits that KVM counted are those that it traced", func(t *testing.T) { testExits(t, machine) })
	t.Run("the prober's own tests pass on this KVM", func(t *testing.T) { testProber(t, machine) })
	t.Run("a node that its user may not open", func(t *testing.T) {
		machine.Sh(t, "chmod 000 /dev/kvm")
		report := reportOf(t, machine, "su -s /bin/bash nobody -c './nodeagent check -o json'")
		machine.Sh(t, "chmod 600 /dev/kvm")
		wantProof(t, report, kvmcheck.NotReady, kvmcheck.PermissionDenied, "permission denied")
	})
	t.Run("a node of another driver", func(t *testing.T) {
		machine.Sh(t, "mv /dev/kvm /dev/kvm.away; mknod /dev/kvm c 1 3")
		report := reportOf(t, machine, "./nodeagent check -o json")
		machine.Sh(t, "mv /dev/kvm.away /dev/kvm")
		wantProof(t, report, kvmcheck.NotReady, kvmcheck.DeviceUnusable, "step api-version")
	})
	t.Run("no descriptor is left for the VM", func(t *testing.T) { testNoDescriptor(t, machine) })
	t.Run("another hypervisor has SVM enabled", func(t *testing.T) { testSVMInUse(t, machine) })
}

func buildAgent(t *testing.T, machine *vm.Machine) {
	t.Helper()
	if err := hosttest.Build(filepath.Join(machine.Share, "nodeagent"), "./cmd/nodeagent"); err != nil {
		t.Fatal(err)
	}
}

// reportOf returns the report that a script prints, whatever its exit status.
func reportOf(t *testing.T, machine *vm.Machine, script string) kvmcheck.Report {
	t.Helper()
	result, err := machine.Exec(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	var report kvmcheck.Report
	if err := json.Unmarshal([]byte(result.Stdout), &report); err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, result.Stdout, result.Stderr)
	}
	return report
}

func wantProof(t *testing.T, report kvmcheck.Report, status kvmcheck.Status, reason kvmcheck.Reason, message string) {
	t.Helper()
	for _, finding := range report.Findings {
		if finding.Key() != "kvm/device" {
			continue
		}
		if finding.Status != status || finding.Reason != reason || !strings.Contains(finding.Message, message) {
			t.Errorf("got %s %s %q, want %s %s %q", finding.Status, finding.Reason, finding.Message, status, reason, message)
		}
		return
	}
	t.Error("no finding kvm/device")
}

// testExits compares KVM's counter with the tracepoint kvm:kvm_exit.
func testExits(t *testing.T, machine *vm.Machine) {
	const tracing = "/sys/kernel/tracing"
	machine.Sh(t, "echo > "+tracing+"/trace; echo 1 > "+tracing+"/events/kvm/kvm_exit/enable")
	report := reportOf(t, machine, "./nodeagent check -o json")
	traced := machine.Sh(t, "echo 0 > "+tracing+"/events/kvm/kvm_exit/enable; grep -c kvm_exit: "+tracing+"/trace")
	wantProof(t, report, kvmcheck.Ready, "", "a guest ran")
	proof := report.Facts.KVM.Proof
	counted := proof.VCPUStats.Value["exits"]
	if counted < 2 || strconv.FormatUint(counted, 10) != strings.TrimSpace(traced) {
		t.Errorf("KVM counted %d exits and traced %s (%+v)", counted, traced, proof)
	}
	if proof.VCPUStats.Value["halt_exits"] != 1 || proof.VCPUStats.Value["io_exits"] != 1 {
		t.Errorf("want one exit of hlt and one of out, have %v", proof.VCPUStats.Value)
	}
}

// testProber runs the tests of pkg/kvmcheck that want /dev/kvm, and its
// benchmarks once.
func testProber(t *testing.T, machine *vm.Machine) {
	binary := filepath.Join(t.TempDir(), "kvmcheck.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "./pkg/kvmcheck")
	build.Dir = hosttest.Root()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	code, err := machine.RunBinary(t.Context(), []string{
		binary, "-test.v", "-test.run=^TestOnKVM", "-test.bench=^Benchmark(Proof|Survey)$", "-test.benchtime=5x",
	}, &stdout, &stderr)
	if err != nil || code != 0 {
		t.Errorf("exit status %d, %v\n%s%s", code, err, &stdout, &stderr)
	}
	if strings.Count(stdout.String(), "--- PASS: TestOnKVM") < 4 || strings.Contains(stdout.String(), "--- SKIP") {
		t.Errorf("not all of them ran:\n%s", &stdout)
	}
	for line := range strings.Lines(stdout.String()) {
		if strings.HasPrefix(line, "Benchmark") && strings.Contains(line, "ns/op") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// testNoDescriptor raises the limit until check comes as far as the VM.
func testNoDescriptor(t *testing.T, machine *vm.Machine) {
	for limit := 4; limit < 20; limit++ {
		result, err := machine.Exec(t.Context(), "ulimit -n "+strconv.Itoa(limit)+"; ./nodeagent check -o json")
		if err != nil {
			t.Fatal(err)
		}
		var report kvmcheck.Report
		if json.Unmarshal([]byte(result.Stdout), &report) != nil {
			continue // not even check itself could work
		}
		if proof := report.Facts.KVM.Proof; proof.Step == kvmcheck.StepCreateVM {
			wantProof(t, report, kvmcheck.Unknown, kvmcheck.DescriptorsExhausted, "KVM_CREATE_VM: too many open files")
			return
		}
	}
	t.Error("no limit let check come as far as the VM, and no further")
}

// testSVMInUse enables SVM behind KVM's back, as another hypervisor does,
// while KVM enables it only when there is a VM (EFER.SVME, bit 12 of MSR 0xc0000080).
func testSVMInUse(t *testing.T, machine *vm.Machine) {
	const efer = 0xc0000080
	seek := strconv.Itoa(efer / 8) // dd counts in blocks of 8 bytes
	machine.Sh(t, `modprobe -r kvm_amd; modprobe -r kvm; modprobe kvm enable_virt_at_load=0; modprobe kvm_amd; modprobe msr
		for cpu in 0 1; do
			dd if=/dev/cpu/$cpu/msr of=/tmp/efer$cpu bs=8 count=1 skip=`+seek+`
			second=$(od -An -tu1 -j1 -N1 /tmp/efer$cpu)
			cp /tmp/efer$cpu /tmp/svme$cpu
			printf "\\x$(printf %x $((second | 0x10)))" | dd of=/tmp/svme$cpu bs=1 seek=1 conv=notrunc
			dd if=/tmp/svme$cpu of=/dev/cpu/$cpu/msr bs=8 count=1 seek=`+seek+` conv=notrunc
		done`)
	report := reportOf(t, machine, "./nodeagent check -o json")
	wantProof(t, report, kvmcheck.NotReady, kvmcheck.VirtualizationInUse, "step create-vm: KVM_CREATE_VM: ")
	machine.Sh(t, "dmesg | grep 'enabling virtualization on CPU. failed'")
	machine.Sh(t, `for cpu in 0 1; do dd if=/tmp/efer$cpu of=/dev/cpu/$cpu/msr bs=8 count=1 seek=`+seek+` conv=notrunc; done`)
	report = reportOf(t, machine, "./nodeagent check -o json")
	wantProof(t, report, kvmcheck.Ready, "", "a guest ran")
	machine.Sh(t, `modprobe -r kvm_amd; modprobe -r kvm; modprobe kvm_amd`)
}

// TestCompareMachines compares a machine with itself and with one of a
// smaller CPU.
func TestCompareMachines(t *testing.T) {
	large := vm.Start(t, vm.KVM())
	buildAgent(t, large)
	large.Sh(t, "./nodeagent check -o json > large.json || true; ./nodeagent capture large.tar.gz")
	for _, other := range []string{"large.json", "large.tar.gz"} {
		if got := large.Sh(t, "./nodeagent check --compare "+other); !strings.HasPrefix(got, "SAME for VMs") {
			t.Errorf("the machine and its %s:\n%s", other, got)
		}
	}
	const without = "avx2"
	profile := vm.KVM()
	profile.CPU += ",-" + without
	small := vm.Start(t, profile)
	buildAgent(t, small)
	data, err := os.ReadFile(filepath.Join(large.Share, "large.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(small.Share, "large.json"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	result, err := small.Exec(t.Context(), "./nodeagent check --compare large.json -o json")
	if err != nil {
		t.Fatal(err)
	}
	var comparison kvmcheck.Comparison
	if err := json.Unmarshal([]byte(result.Stdout), &comparison); err != nil || result.Code != 1 {
		t.Fatalf("exit status %d, %v\n%s%s", result.Code, err, result.Stdout, result.Stderr)
	}
	if comparison.AToB.Status != kvmcheck.Ready || comparison.BToA.Status != kvmcheck.NotReady ||
		!slices.Contains(comparison.BToA.Why, without) || !slices.Contains(comparison.Differences, kvmcheck.Difference{What: without, A: "no", B: "yes"}) {
		t.Errorf("got %+v, %+v, %+v", comparison.AToB, comparison.BToA, comparison.Differences)
	}
	result, err = small.Exec(t.Context(), "./nodeagent check --compare large.json")
	if err != nil || !strings.HasPrefix(result.Stdout, "SAFE to migrate VMs from A to B only") {
		t.Errorf("%v\n%s", err, result.Stdout)
	}
	t.Log("\n" + result.Stdout)
}
