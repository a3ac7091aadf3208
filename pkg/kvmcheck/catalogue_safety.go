package kvmcheck

// The reasons about time and safety.
const (
	TSCNotInvariant    Reason = "TSCNotInvariant"
	TSCUnstable        Reason = "TSCUnstable"
	ClocksourceNotTSC  Reason = "ClocksourceNotTSC"
	CPUVulnerable      Reason = "CPUVulnerable"
	MitigationUnknown  Reason = "MitigationUnknown"
	SMTVulnerable      Reason = "SMTVulnerable"
	MicrocodeDiffers   Reason = "MicrocodeDiffers"
	MicrocodeHidden    Reason = "MicrocodeHidden"
	KernelConfidential Reason = "KernelConfidential"
	VMsNotConfined     Reason = "VMsNotConfined"
)

// checksOfSafety asks about TSC and microcode on x86 only.
func checksOfSafety() []Check {
	return []Check{
		{"time", "tsc", Optional, "Does the CPUs' counter run at one rate, always?", "/proc/cpuinfo, /sys/devices/system/cpu/cpu0/tsc_freq_khz", []Reason{TSCNotInvariant}},
		{"time", "clocksource", Recommended, "Does the kernel tell the time by the CPUs' counter?", clocksourceDir, []Reason{ClocksourceNotTSC, TSCUnstable}},
		{"safety", "mitigations", Recommended, "Are the CPUs' known flaws mitigated for VMs?", vulnerabilitiesDir, []Reason{CPUVulnerable, MitigationUnknown}},
		{"safety", "smt", Recommended, "Are VMs safe from each other on hyperthreads?", vulnerabilitiesDir + ", " + smtDir, []Reason{SMTVulnerable}},
		{"safety", "microcode", Recommended, "Have all CPUs the same microcode?", "/proc/cpuinfo", []Reason{MicrocodeHidden, MicrocodeDiffers}},
		{"safety", "lockdown", Optional, "Does the kernel let BPF programs read it?", securityDir + "/lockdown", []Reason{KernelConfidential}},
		{"safety", "confinement", Recommended, "Does SELinux or AppArmor confine QEMU?", selinuxDir + "/enforce, " + apparmorEnabled + ", " + lsmList, []Reason{VMsNotConfined}},
	}
}

func causesOfSafety() []Cause {
	return []Cause{
		{TSCNotInvariant, "The CPUs' time-stamp counter changes its rate or stops in deep sleep. VMs that are pinned to a TSC frequency (KubeVirt's tsc-frequency, Windows with Hyper-V clocks) cannot rely on it.", []Fix{
			{"a VM", "give it the invariant TSC (libvirt: <feature policy='require' name='invtsc'/>)"},
			{"", "use a CPU with an invariant TSC: any server CPU of the last decade has one"},
		}},
		{TSCUnstable, "The kernel has found the CPUs' time-stamp counters to disagree, or to drift, and no longer uses them. Clocks in VMs become slow to read, and may jump.", []Fix{
			{"", "dmesg | grep -i -e tsc -e clocksource says why; update the firmware"},
			{"", "if the watchdog was wrong (heavy load, many sockets): boot with tsc=nowatchdog, or tsc=reliable"},
		}},
		{ClocksourceNotTSC, "The kernel tells the time by something slower than the CPUs' counter, so KVM cannot give VMs a clock that they read without an exit.", []Fix{
			{"", "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, and remove clocksource= from the kernel command line"},
			{"a VM", "give it the invariant TSC and choose the clocksource tsc"},
		}},
		{CPUVulnerable, "The kernel says that guests can use a flaw of these CPUs, against the host or against each other.", []Fix{
			{"Debian, Ubuntu", "apt install intel-microcode or amd64-microcode, and reboot"},
			{"RHEL, Fedora", "dnf update microcode_ctl linux-firmware kernel, and reboot"},
			{"", "remove mitigations=off and its like from the kernel command line; update kernel and firmware"},
			{"a VM", "the hypervisor above must pass the CPU's protections on: CPU mode host-passthrough or host-model"},
		}},
		{MitigationUnknown, "The kernel cannot tell whether a flaw of these CPUs is mitigated: the CPU is too old to be looked after, or the hypervisor above hides it.", []Fix{
			{"a VM", "ask whoever runs the hypervisor"},
		}},
		{SMTVulnerable, "Two guests on one core's hyperthreads can read each other's data, or the host's: a mitigation is there, and does not cover this.", []Fix{
			{"", "where VMs do not trust each other: echo off > /sys/devices/system/cpu/smt/control; for good: mitigations=auto,nosmt on the kernel command line"},
			{"", "or give VMs whole cores: dedicated CPUs with isolated hyperthreads, or core scheduling"},
		}},
		{MicrocodeDiffers, "The CPUs run different revisions of microcode. Features and mitigations may then differ from CPU to CPU.", []Fix{
			{"", "update microcode and firmware, and reboot: early loading gives all CPUs the newest revision"},
		}},
		{MicrocodeHidden, "The kernel shows no microcode revision.", nil},
		{KernelConfidential, "Lockdown in mode confidentiality keeps root from reading kernel memory, so BPF programs cannot read it, and their metrics are missing. VMs are not touched.", []Fix{
			{"", "boot with lockdown=integrity where the policy allows it"},
		}},
		{VMsNotConfined, "Neither SELinux nor AppArmor confines QEMU: a guest that breaks out of it can do what its user can.", []Fix{
			{"RHEL, Fedora", "setenforce 1, and SELINUX=enforcing in /etc/selinux/config"},
			{"Debian, Ubuntu", "boot with apparmor=1 security=apparmor"},
		}},
	}
}
