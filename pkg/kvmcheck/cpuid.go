package kvmcheck

import "math"

// all is every bit of a register, and anySubleaf every subleaf of a leaf.
const (
	all        = math.MaxUint32
	anySubleaf = -1
)

// masked are bits of a CPUID leaf that are no features of the guest's CPU.
type masked struct {
	leaf               uint32
	subleaf            int64
	eax, ebx, ecx, edx uint32
	why                string
}

// maskedRegisters lists what a fingerprint leaves out, and why.
func maskedRegisters() []masked {
	return []masked{
		{0x0, anySubleaf, all, all, all, all, "the highest leaf is set by the guest's CPU model; the vendor is compared by name"},
		{0x1, anySubleaf, all, all, 0, 0, "family and model are compared by number, a stepping has no features; the rest is the APIC's number and the count of CPUs"},
		{0x1, anySubleaf, 0, 0, 1 << 27, 0, "OSXSAVE mirrors a control register of the guest"},
		{0x2, anySubleaf, all, all, all, all, "caches and TLBs: the guest's CPU model brings its own"},
		{0x4, anySubleaf, all, all, all, all, "caches: the guest's CPU model brings its own"},
		{0x5, anySubleaf, all, all, all, all, "sizes for monitor and mwait, which VMs that migrate do not have"},
		{0x7, 0, all, 0, 1 << 4, 0, "eax is the highest subleaf; OSPKE mirrors a control register of the guest"},
		{0xa, anySubleaf, 0xff_ff_00_00, all, 0, 0xffff_ffe0, "widths of counters, and events that are missing"},
		{0xb, anySubleaf, all, all, all, all, "topology: it is the VM's own"},
		{0xd, 0, 0, all, all, 0, "sizes that follow from the components, and from what is enabled now"},
		{0xd, 1, 0, all, 0, 0, "a size that follows from what is enabled now"},
		{0x14, 0, all, 0, 0, 0, "the highest subleaf"},
		{0x15, anySubleaf, all, all, all, all, "frequencies: the TSC's is compared as measured"},
		{0x16, anySubleaf, all, all, all, all, "frequencies in MHz, for people"},
		{0x18, anySubleaf, all, all, all, all, "TLBs: the guest's CPU model brings its own"},
		{0x1d, 0, all, 0, 0, 0, "the highest subleaf"},
		{0x1f, anySubleaf, all, all, all, all, "topology: it is the VM's own"},
		{0x4000_0000, anySubleaf, all, all, all, all, "KVM's signature, and its highest leaf"},
		{0x8000_0000, anySubleaf, all, all, all, all, "the highest leaf, and the vendor again"},
		{0x8000_0001, anySubleaf, all, all, 0, 0, "family and model again"},
		{0x8000_0002, anySubleaf, all, all, all, all, "the brand, for people"},
		{0x8000_0003, anySubleaf, all, all, all, all, "the brand, for people"},
		{0x8000_0004, anySubleaf, all, all, all, all, "the brand, for people"},
		{0x8000_0005, anySubleaf, all, all, all, all, "caches and TLBs: the guest's CPU model brings its own"},
		{0x8000_0006, anySubleaf, all, all, all, all, "caches and TLBs: the guest's CPU model brings its own"},
		{0x8000_0008, anySubleaf, 0xffff_0000, 0, all, all, "guest-physical bits, which older kernels leave at 0; counts of CPUs"},
		{0x8000_000a, anySubleaf, all, all, all, 0, "revision and count of address spaces, which KVM makes up"},
		{0x8000_0019, anySubleaf, all, all, all, all, "TLBs: the guest's CPU model brings its own"},
		{0x8000_001d, anySubleaf, all, all, all, all, "caches: the guest's CPU model brings its own"},
		{0x8000_001e, anySubleaf, all, all, all, all, "topology: it is the VM's own"},
		{0x8000_001f, anySubleaf, 0, all, all, all, "places and counts for encrypted memory; encrypted VMs do not migrate"},
		{0xc000_0000, anySubleaf, all, all, all, all, "the highest leaf"},
	}
}

// number is a field of a CPUID leaf that holds a number rather than features.
type number struct {
	leaf         uint32
	subleaf      int64
	register     string
	shift, width int
	exact        bool // guests need the same number; otherwise at least as much
	name         string
}

// leafNumbers lists the fields that hold numbers.
func leafNumbers() []number {
	return []number{
		{0xa, anySubleaf, "eax", 0, 8, false, "version of performance monitoring"},
		{0xa, anySubleaf, "eax", 8, 8, false, "performance counters"},
		{0xa, anySubleaf, "edx", 0, 5, false, "fixed performance counters"},
		{0x1d, 1, "eax", 0, 32, true, "tile palette 1 eax"},
		{0x1d, 1, "ebx", 0, 32, true, "tile palette 1 ebx"},
		{0x1d, 1, "ecx", 0, 32, true, "tile palette 1 ecx"},
		{0x1e, 0, "ebx", 0, 32, true, "tile multiplication ebx"},
		{0x24, 0, "ebx", 0, 8, false, "version of AVX10"},
		{0x8000_0008, anySubleaf, "eax", 0, 8, false, "physical address bits"},
		{0x8000_0008, anySubleaf, "eax", 8, 8, false, "linear address bits"},
		{0x8000_0022, anySubleaf, "ebx", 0, 4, false, "core performance counters"},
	}
}

// numbersIn returns the fields of one leaf that hold numbers. The leaves of
// XSAVE's components say where in memory each is: 0xd.2 and following.
func numbersIn(leaf CPUID) []number {
	var fields []number
	for _, field := range leafNumbers() {
		if field.leaf == leaf.Leaf && (field.subleaf == anySubleaf || field.subleaf == int64(leaf.Subleaf)) {
			fields = append(fields, field)
		}
	}
	if leaf.Leaf == 0xd && leaf.Subleaf >= 2 {
		for register, what := range map[string]string{"eax": "size", "ebx": "offset", "ecx": "flags"} {
			fields = append(fields, number{leaf.Leaf, int64(leaf.Subleaf), register, 0, 32, true, xsaveName(leaf.Subleaf, what)})
		}
	}
	return fields
}

// featureMask returns the bits of an MSR that are features of a guest; none
// of an MSR that is not known to have any, such as 0x8b, the microcode's revision.
func featureMask(msr uint32) uint64 {
	const high = math.MaxUint32 << 32
	switch msr {
	case 0x10a: // IA32_ARCH_CAPABILITIES; RSBA and RRSBA confess a weakness
		return math.MaxUint64 &^ (1<<2 | 1<<19)
	case 0x345: // IA32_PERF_CAPABILITIES; the low bits are a format
		return math.MaxUint64 &^ 0x3f
	case 0x480: // IA32_VMX_BASIC: INS/OUTS, true controls, any error code
		return 1<<54 | 1<<55 | 1<<56
	case 0x48b, 0x48d, 0x48e, 0x48f, 0x490: // IA32_VMX_…_CTLS: what a nested hypervisor may set
		return high
	case 0x485: // IA32_VMX_MISC: EFER.LMA, activity states, writes to exit fields, empty injections
		return 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<29 | 1<<30
	case 0x48c, 0x491: // IA32_VMX_EPT_VPID_CAP, IA32_VMX_VMFUNC
		return math.MaxUint64
	case 0xc001_1029: // AMD's DE_CFG: LFENCE waits
		return 1 << 1
	default:
		return 0
	}
}
