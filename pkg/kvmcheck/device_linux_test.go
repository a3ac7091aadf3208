package kvmcheck

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// onKVM returns this machine's devices, for tests named TestOnKVM…; the tests
// of test/vm run those in a guest with /dev/kvm.
func onKVM(t testing.TB) hostDevices {
	t.Helper()
	device, err := os.OpenFile(kvmPath, os.O_RDWR, 0)
	if err != nil || runtime.GOARCH != "amd64" {
		t.Skipf("wants an amd64 machine with KVM: %v", err)
	}
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	root, err := hostfs.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return hostDevices{root}
}

// held lists what this process has open or mapped of KVM.
func held(t testing.TB) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.Contains(target, "kvm") {
			all = append(all, target)
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "kvm-") {
			all = append(all, line)
		}
	}
	return all
}

func TestOnKVMTheGuestRunsAndLeavesNothing(t *testing.T) {
	devices := onKVM(t)
	for range 3 {
		proof := devices.ProveKVM(t.Context())
		if proof.Step != StepDone || proof.Exits != 2 || proof.Err != "" {
			t.Fatalf("got %+v", proof)
		}
		if proof.VCPUStats.Value["exits"] < 2 || !proof.VMStats.Known {
			t.Errorf("KVM counted %+v, %+v", proof.VCPUStats, proof.VMStats)
		}
	}
	if survey := devices.SurveyKVM(); !NewFingerprint(survey).Known || !survey.TSCKHz.Known {
		t.Errorf("got %+v", survey)
	}
	if left := held(t); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
}

func TestOnKVMTheDeadlineStopsAGuestThatDoesNotEnd(t *testing.T) {
	devices := onKVM(t)
	kvm, _ := devices.open(kvmPath)
	vm, err := createVM(kvm)
	if err != nil {
		t.Fatal(err)
	}
	endless := amd64Guest()
	endless.code = "\xeb\xfe" // jmp to itself
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	proof := runGuest(ctx, kvm, vm, endless, Proof{})
	if !proof.TimedOut || proof.Step != StepRun {
		t.Errorf("got %+v", proof)
	}
	for name, code := range map[string]string{
		"the guest ended without its output":     "\xf4",                          // hlt
		"KVM_EXIT_IO without the guest's output": "\xe6\x10\xf4",                  // out 0x10, al; hlt
		"no end after 64 exits":                  "\xba\xf8\x03\xb0K\xee\xeb\xfd", // the output, again and again
	} {
		vm, err := createVM(kvm)
		if err != nil {
			t.Fatal(err)
		}
		wrong := amd64Guest()
		wrong.code = code
		proof := runGuest(t.Context(), kvm, vm, wrong, Proof{})
		if proof.Step != StepRun || !strings.Contains(proof.Err, name) {
			t.Errorf("want %q, have %+v", name, proof)
		}
		_ = vm.Close()
	}
	_, _ = vm.Close(), kvm.Close()
	if left := held(t); len(left) > 0 {
		t.Errorf("left open: %v", left)
	}
}

// TestOnKVMEachRefusedCallHasItsReason lets the kernel refuse one call of the
// proof after the other, as a container's seccomp profile can.
func TestOnKVMEachRefusedCallHasItsReason(t *testing.T) {
	devices := onKVM(t)
	for name, test := range map[string]struct {
		request uintptr
		errno   unix.Errno
		step    Step
		reason  Reason
	}{
		"the version":                     {kvmGetAPIVersion, unix.ENOTTY, StepAPIVersion, DeviceUnusable},
		"a VM, forbidden":                 {kvmCreateVM, unix.EPERM, StepCreateVM, PermissionDenied},
		"a VM, no memory":                 {kvmCreateVM, unix.ENOMEM, StepCreateVM, OutOfMemory},
		"a VM, no descriptor":             {kvmCreateVM, unix.EMFILE, StepCreateVM, DescriptorsExhausted},
		"a VM, no virtualization":         {kvmCreateVM, unix.EOPNOTSUPP, StepCreateVM, DeviceUnusable},
		"a VM, another hypervisor":        {kvmCreateVM, unix.EBUSY, StepCreateVM, VirtualizationInUse},
		"memory":                          {kvmSetUserMemoryRegion, unix.ENOMEM, StepMapMemory, OutOfMemory},
		"a vCPU":                          {kvmCreateVCPU, unix.EMFILE, StepCreateVCPU, DescriptorsExhausted},
		"the size of struct kvm_run":      {kvmGetVCPUMmapSize, unix.EACCES, StepCreateVCPU, PermissionDenied},
		"a run, forbidden":                {kvmRun, unix.EPERM, StepRun, PermissionDenied},
		"a run, by a VM that is given up": {kvmRun, unix.EIO, StepRun, GuestFailed},
	} {
		t.Run(name, func(t *testing.T) {
			var proof Proof
			refusing(t, test.request, test.errno, func() { proof = devices.ProveKVM(t.Context()) })
			finding := evaluateProof(Facts{KVM: KVMFacts{Proof: proof}})
			if proof.Step != test.step || proof.Errno != unix.ErrnoName(test.errno) || finding.Reason != test.reason {
				t.Errorf("got %s, %+v", finding.Reason, proof)
			}
			if left := held(t); len(left) > 0 {
				t.Errorf("left open: %v", left)
			}
		})
	}
	t.Run("counters", func(t *testing.T) {
		var proof Proof
		refusing(t, kvmGetStatsFD, unix.ENOTTY, func() { proof = devices.ProveKVM(t.Context()) })
		if proof.Step != StepDone || proof.VCPUStats.Known || !strings.Contains(proof.VCPUStats.Err, "KVM_GET_STATS_FD") {
			t.Errorf("got %+v", proof)
		}
	})
	t.Run("the survey", func(t *testing.T) {
		var survey Survey
		refusing(t, kvmGetSupportedCPUID, unix.EPERM, func() { survey = devices.SurveyKVM() })
		if survey.CPUID.Known || !survey.Capabilities.Known || NewFingerprint(survey).Known {
			t.Errorf("got %+v", survey)
		}
		refusing(t, kvmCreateVM, unix.EBUSY, func() { survey = devices.SurveyKVM() })
		if survey.Capabilities.Known || !strings.Contains(survey.Capabilities.Err, "KVM_CREATE_VM: device or resource busy") {
			t.Errorf("got %+v", survey.Capabilities)
		}
		if left := held(t); len(left) > 0 {
			t.Errorf("left open: %v", left)
		}
	})
}

// refusing runs do on a thread of its own, for which the kernel answers one
// ioctl request with an error (Linux Documentation/userspace-api/seccomp_filter.rst).
func refusing(t *testing.T, request uintptr, errno unix.Errno, do func()) {
	t.Helper()
	const (
		load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jump = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret  = unix.BPF_RET | unix.BPF_K
		// Offsets into struct seccomp_data: nr, and the low half of args[1].
		callNumber, requestNumber = 0, 24
	)
	program := []unix.SockFilter{
		{Code: load, K: callNumber},
		{Code: jump, K: unix.SYS_IOCTL, Jf: 3},
		{Code: load, K: requestNumber},
		{Code: jump, K: uint32(request), Jf: 1},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its filter
		filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
		}
		if err == nil {
			do()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestOnKVMInstructionsAreThoseOfTheCPU compares what the fingerprint names
// with the flags in /proc/cpuinfo, for instructions that KVM passes on as they
// are, if it is Intel's or AMD's: KVM without either keeps many to itself.
func TestOnKVMInstructionsAreThoseOfTheCPU(t *testing.T) {
	devices := onKVM(t)
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == "flags" {
			flags = strings.Fields(value)
			break
		}
	}
	_, noIntel := os.Stat("/sys/module/kvm_intel")
	_, noAMD := os.Stat("/sys/module/kvm_amd")
	passedOn := noIntel == nil || noAMD == nil
	features := NewFingerprint(devices.SurveyKVM()).Value.Features
	for _, name := range []string{
		"sse2", "pni", "ssse3", "sse4.1", "sse4.2", "fma", "cx16", "movbe", "popcnt", "aes", "avx", "f16c", "rdrand",
		"fsgsbase", "bmi1", "avx2", "bmi2", "rdseed", "adx", "clflushopt", "sha-ni", "avx512f", "avx512bw", "gfni", "vaes",
		"xsaveopt", "xsavec", "lahf_lm", "abm", "sse4a", "3dnowprefetch", "syscall", "nx", "pdpe1gb", "rdtscp", "lm", "clzero",
	} {
		inCPU := slices.Contains(flags, strings.NewReplacer(".", "_", "-", "_").Replace(name))
		if inFingerprint := slices.Contains(features, name); inFingerprint && !inCPU || passedOn && inCPU && !inFingerprint {
			t.Errorf("%s: in /proc/cpuinfo %v, in the fingerprint %v", name, inCPU, inFingerprint)
		}
	}
}

func BenchmarkProof(b *testing.B) {
	devices := onKVM(b)
	for b.Loop() {
		if proof := devices.ProveKVM(b.Context()); proof.Step != StepDone {
			b.Fatal(proof.Err)
		}
	}
}

func BenchmarkSurvey(b *testing.B) {
	devices := onKVM(b)
	for b.Loop() {
		if survey := devices.SurveyKVM(); !survey.Capabilities.Known {
			b.Fatal(survey.Capabilities.Err)
		}
	}
}
