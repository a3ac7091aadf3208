package kvmcheck

import (
	"fmt"
	"strings"
)

// cpuidFeatureName names a bit of CPUID as libvirt and KubeVirt do, or by its place.
func cpuidFeatureName(leaf, subleaf uint32, register string, bit int) string {
	for _, known := range cpuidFeatures() {
		if known.leaf == leaf && known.subleaf == subleaf && known.register == register {
			if name := nameOfBit(known.names, bit); name != "" {
				return name
			}
		}
	}
	place := fmt.Sprintf("leaf %x", leaf)
	if subleaf != 0 || leaf == 0x7 || leaf == 0xd {
		place = fmt.Sprintf("leaf %x.%x", leaf, subleaf)
	}
	return fmt.Sprintf("%s %s bit %d", place, register, bit)
}

// msrFeatureName names a bit of a feature MSR.
func msrFeatureName(index uint32, bit int) string {
	name := ""
	switch index {
	case 0x10a:
		name = nameOfBit(archCapabilities, bit)
	case 0xc001_1029:
		name = "lfence-always-serializing"
	}
	if name == "" {
		name = fmt.Sprintf("msr %x bit %d", index, bit)
	}
	return name
}

func xsaveName(component uint32, what string) string {
	return fmt.Sprintf("xsave component %d %s", component, what)
}

// nameOfBit picks a name out of a list from bit 0 on, in which "-" has none.
func nameOfBit(names string, bit int) string {
	for name := range strings.FieldsSeq(names) {
		if bit == 0 && name != "-" {
			return name
		}
		bit--
	}
	return ""
}

// archCapabilities names IA32_ARCH_CAPABILITIES from bit 0.
const archCapabilities = `rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl
	taa-no - - - - sbdr-ssdp-no fbsdp-no psdp-no
	- fb-clear - rrsba bhi-no - - -
	pbrsb-no gds-ctrl gds-no rfds-no rfds-clear - - -
	- - - - - - - -
	- - - - - - - -
	- - - - - - - -
	- - - - - - its-no -`

// registerFeatures names the bits of one register.
type registerFeatures struct {
	leaf, subleaf uint32
	register      string
	names         string // from bit 0; "-" has none
}

// cpuidFeatures names the well-known bits of CPUID, eight to a line, as
// libvirt does (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E;
// Linux Documentation/virt/kvm/x86/cpuid.rst for 0x40000001).
func cpuidFeatures() []registerFeatures {
	return []registerFeatures{
		{0x1, 0, "ecx", `pni pclmuldq dtes64 monitor ds_cpl vmx smx est
			tm2 ssse3 cid - fma cx16 xtpr pdcm
			- pcid dca sse4.1 sse4.2 x2apic movbe popcnt
			tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor`},
		{0x1, 0, "edx", `fpu vme de pse tsc msr pae mce
			cx8 apic - sep mtrr pge mca cmov
			pat pse36 pn clflush - ds acpi mmx
			fxsr sse sse2 ss ht tm ia64 pbe`},
		{0x6, 0, "eax", `- - arat`},
		{0x7, 0, "ebx", `fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp-excptn-only smep
			bmi2 erms invpcid rtm cmt zero-fcs-fds mpx -
			avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt
			clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl`},
		{0x7, 0, "ecx", `- avx512vbmi umip pku ospke waitpkg avx512vbmi2 -
			gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq -
			la57 - - - - - rdpid -
			bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks`},
		{0x7, 0, "edx", `- - avx512-4vnniw avx512-4fmaps fsrm - - -
			avx512-vp2intersect - md-clear - - - serialize -
			tsx-ldtrk - pconfig arch-lbr - - amx-bf16 avx512-fp16
			amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd`},
		{0x7, 1, "eax", `sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd
			- - fzrm fsrs fsrc - - -
			- fred lkgs wrmsrns - amx-fp16 - avx-ifma
			- - lam`},
		{0x7, 1, "edx", `- - - - avx-vnni-int8 avx-ne-convert - -
			amx-complex - avx-vnni-int16 - - - prefetchiti -
			- - - avx10`},
		{0x7, 2, "edx", `intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no`},
		{0xd, 0, "eax", `xcr0-x87 xcr0-sse xcr0-avx xcr0-bndregs xcr0-bndcsr xcr0-opmask xcr0-zmm-hi256 xcr0-hi16-zmm
			- xcr0-pkru - - - - - -
			- xcr0-tilecfg xcr0-tiledata`},
		{0xd, 1, "eax", `xsaveopt xsavec xgetbv1 xsaves xfd`},
		{0x12, 0, "eax", `sgx1 sgx2 - - - - - -
			- - - sgx-edeccssa`},
		{0x4000_0001, 0, "eax", `kvmclock kvm-nopiodelay kvm-mmu kvmclock2 kvm-asyncpf kvm-steal-time kvm-pv-eoi kvm-pv-unhalt
			- kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id
			kvm-hc-map-gpa-range kvm-migration-control - - - - - -
			kvmclock-stable-bit`},
		{0x8000_0001, 0, "ecx", `lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse
			3dnowprefetch osvw ibs xop skinit wdt - lwp
			fma4 tce cvt16 nodeid_msr - tbm topoext perfctr_core
			perfctr_nb`},
		// AMD repeats leaf 1 edx here; those bits carry its names.
		{0x8000_0001, 0, "edx", `fpu vme de pse tsc msr pae mce
			cx8 apic - syscall mtrr pge mca cmov
			pat pse36 - - nx - mmxext mmx
			fxsr fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow`},
		{0x8000_0007, 0, "ebx", `overflow-recov succor`},
		{0x8000_0007, 0, "edx", `- - - - - - - -
			invtsc`},
		{0x8000_0008, 0, "ebx", `clzero - xsaveerptr - - - - -
			- wbnoinvd - - ibpb - ibrs amd-stibp
			- stibp-always-on - - - - - -
			amd-ssbd virt-ssbd amd-no-ssb - amd-psfd`},
		{0x8000_000a, 0, "edx", `npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists
			- - pause-filter - pfthreshold avic - v-vmsave-vmload
			vgif - - - - - - -
			- vnmi - - svme-addr-chk`},
		{0x8000_0021, 0, "eax", `no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base -
			auto-ibrs - - - - - - -
			- - - - - - - -
			eraps - - sbpb ibpb-brtype srso-no srso-user-kernel-no`},
		{0x8000_0022, 0, "eax", `perfmon-v2`},
	}
}
