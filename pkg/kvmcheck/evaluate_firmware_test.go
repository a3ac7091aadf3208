package kvmcheck

import (
	"errors"
	"testing"
)

func healthyFirmware() FirmwareFacts {
	return FirmwareFacts{
		Offered:    known("/dev/cpu/0/cpuid", true),
		Driver:     known("/dev/cpu/0/msr", true),
		Registers:  known("/dev/cpu/*/msr", []CPUGroup{{Value: 0x5, CPUs: "0-3"}}),
		Hypervisor: known("/proc/cpuinfo", Hypervisor{}),
	}
}

// change is one change to a host, and what a check must then say.
type change struct {
	change func(*Facts)
	check  string
	status Status
	reason Reason
}

// testChanges changes healthy hosts one by one.
func testChanges(t *testing.T, changes map[string]change) {
	t.Helper()
	for name, test := range changes {
		t.Run(name, func(t *testing.T) {
			facts := healthy()
			test.change(&facts)
			for _, finding := range Evaluate(facts, Profile{}) {
				if finding.Key() != test.check {
					continue
				}
				declares(t, finding)
				if finding.Status != test.status || finding.Reason != test.reason {
					t.Errorf("got %s %s (%s), want %s %s", finding.Status, finding.Reason, finding.Message, test.status, test.reason)
				}
				if finding.Status == NotReady && finding.Remedy == "" {
					t.Error("no remedy")
				}
				return
			}
			t.Errorf("no finding %s", test.check)
		})
	}
}

// stopped is a host on which KVM does not run, with registers of some CPUs.
func stopped(vendor, extension string, groups ...CPUGroup) func(*Facts) {
	return func(f *Facts) {
		f.CPU.Info.Value.Vendor, f.CPU.Info.Value.Extension = vendor, extension
		if extension == "" {
			f.CPU.Info.Value.Extended = 0
		}
		f.KVM.Proof = Proof{Node: Node{Path: kvmPath, State: NodeAbsent}}
		f.Firmware.Registers.Value = groups
	}
}

func TestFirmwareHasItsReasons(t *testing.T) {
	const firmware = "firmware/virtualization"
	and := func(first, second func(*Facts)) func(*Facts) {
		return func(f *Facts) { first(f); second(f) }
	}
	intelOff := stopped("GenuineIntel", "", CPUGroup{0x1, "0-3"})
	inVM := func(f *Facts) { f.CPU.Info.Value.Hypervisor = true; f.Firmware.Offered.Value = false }
	testChanges(t, map[string]change{
		"Intel locked off":                             {intelOff, firmware, NotReady, DisabledInFirmware},
		"Intel locked off, and the flag is hidden":     {intelOff, "cpu/virtualization", NotReady, DisabledInFirmware},
		"Intel locked off, an old kernel with flag":    {stopped("GenuineIntel", "vmx", CPUGroup{0x1, "0-3"}), "cpu/virtualization", Ready, ""},
		"Intel locked with VMX inside SMX only":        {stopped("GenuineIntel", "", CPUGroup{0x3, "0-3"}), firmware, NotReady, DisabledInFirmware},
		"Intel locked off on one socket":               {stopped("GenuineIntel", "vmx", CPUGroup{0x5, "0-1"}, CPUGroup{0x1, "2-3"}), firmware, NotReady, FirmwareDiffers},
		"Intel not locked":                             {stopped("GenuineIntel", "vmx", CPUGroup{0x0, "0-3"}), firmware, Unknown, FirmwareUnlocked},
		"Intel locked on, KVM not loaded":              {stopped("GenuineIntel", "vmx", CPUGroup{0x5, "0-3"}), firmware, Ready, ""},
		"AMD with SVMDIS":                              {stopped("AuthenticAMD", "svm", CPUGroup{0x18, "0-3"}), firmware, NotReady, DisabledInFirmware},
		"AMD with SVMDIS, /dev/kvm":                    {stopped("AuthenticAMD", "svm", CPUGroup{0x18, "0-3"}), "kvm/device", NotReady, DeviceMissing},
		"AMD with SVMDIS, a kernel that hides svm":     {stopped("AuthenticAMD", "", CPUGroup{0x10, "0-3"}), "cpu/virtualization", NotReady, DisabledInFirmware},
		"AMD locked on":                                {stopped("AuthenticAMD", "svm", CPUGroup{0x8, "0-3"}), firmware, Ready, ""},
		"AMD not locked":                               {stopped("AuthenticAMD", "svm", CPUGroup{0x0, "0-3"}), firmware, Ready, ""},
		"a CPU without VMX, locked off":                {and(intelOff, func(f *Facts) { f.Firmware.Offered.Value = false }), firmware, NotReady, CPUFlagMissing},
		"a CPU without VMX is no firmware's fault":     {and(intelOff, func(f *Facts) { f.Firmware.Offered.Value = false }), "cpu/virtualization", NotReady, CPUFlagMissing},
		"a VM that is not given VMX":                   {and(intelOff, inVM), firmware, NotReady, NestedNotExposed},
		"a VM that is not given VMX, its flag":         {and(intelOff, inVM), "cpu/virtualization", NotReady, NestedNotExposed},
		"a VM whose own firmware locks VMX off":        {and(intelOff, func(f *Facts) { f.CPU.Info.Value.Hypervisor = true }), "cpu/virtualization", NotReady, DisabledInFirmware},
		"no msr module, KVM works":                     {func(f *Facts) { f.Firmware = FirmwareFacts{} }, firmware, Ready, ""},
		"the register cannot be read, KVM works":       {func(f *Facts) { f.Firmware.Registers = unknown[[]CPUGroup]("/msr", errors.New("EIO")) }, firmware, Ready, ""},
		"/proc/cpuinfo cannot be read, KVM is stopped": {and(intelOff, func(f *Facts) { f.CPU.Info = unknown[CPUInfo]("/proc/cpuinfo", errors.New("EIO")) }), firmware, Unknown, ReadFailed},
		"the register cannot be read, KVM is stopped": {
			and(intelOff, func(f *Facts) { f.Firmware.Registers = unknown[[]CPUGroup]("/msr", errors.New("EIO")) }), firmware, Unknown, ReadFailed,
		},
		"no msr module, KVM is stopped": {
			and(intelOff, func(f *Facts) {
				f.Firmware.Registers = unknown[[]CPUGroup]("/msr", errors.New("ENOENT"))
				f.Firmware.Driver.Value = false
			}), firmware, Unknown, ModuleNotLoaded,
		},
		"a VM with nested virtualization": {
			func(f *Facts) { f.Firmware.Hypervisor.Value = Hypervisor{Name: "KVM", Depth: 1} }, "machine/bare-metal", NotReady, RunsInVM,
		},
		"nobody knows what is above": {
			func(f *Facts) { f.Firmware.Hypervisor = unknown[Hypervisor]("/dmi", errors.New("EIO")) }, "machine/bare-metal", Unknown, ReadFailed,
		},
	})
}
