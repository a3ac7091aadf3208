package kvmcheck

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Numbers of the capabilities that the survey itself depends on.
const (
	capGetTSCKHz        = 61
	capCheckExtensionVM = 105
	capGetMSRFeatures   = 153
	capARMVMIPASize     = 165
)

// surveyed is a capability that the survey asks for.
type surveyed struct {
	name   string // as in linux/kvm.h, without KVM_CAP_
	number int
	asks   string
}

// surveyedCapabilities is what the survey asks for, in the order of their
// numbers (Linux include/uapi/linux/kvm.h).
func surveyedCapabilities() []surveyed {
	return []surveyed{
		{"IRQCHIP", 0, "interrupt controllers in the kernel"},
		{"USER_MEMORY", 3, "guest memory from a process"},
		{"SET_TSS_ADDR", 4, "a place for the task state segment"},
		{"EXT_CPUID", 7, "CPUID with subleaves"},
		{"NR_VCPUS", 9, "vCPUs in a VM that KVM recommends at most"},
		{"NR_MEMSLOTS", 10, "memory slots of a VM"},
		{"MP_STATE", 14, "the run state of vCPUs"},
		{"SYNC_MMU", 16, "guest memory that can be swapped and shared"},
		{"DESTROY_MEMORY_REGION_WORKS", 21, "memory slots that can be removed"},
		{"IRQ_ROUTING", 25, "routes from interrupt lines to controllers"},
		{"JOIN_MEMORY_REGIONS_WORKS", 30, "memory slots that can be joined"},
		{"MCE", 31, "machine checks for guests, in banks"},
		{"IRQFD", 32, "interrupts from event descriptors"},
		{"IOEVENTFD", 36, "event descriptors from guest writes"},
		{"SET_IDENTITY_MAP_ADDR", 37, "a place for the identity map"},
		{"ADJUST_CLOCK", 39, "a guest clock that can be set"},
		{"INTERNAL_ERROR_DATA", 40, "details of internal errors"},
		{"VCPU_EVENTS", 41, "pending events of vCPUs"},
		{"HYPERV", 44, "Hyper-V's hypercalls"},
		{"HYPERV_VAPIC", 45, "Hyper-V's APIC registers as MSRs"},
		{"HYPERV_SPIN", 46, "Hyper-V's notice of long spin waits"},
		{"DEBUGREGS", 50, "debug registers of vCPUs"},
		{"X86_ROBUST_SINGLESTEP", 51, "single steps through the guest"},
		{"XSAVE", 55, "the extended state of vCPUs"},
		{"XCRS", 56, "the extended control registers of vCPUs"},
		{"TSC_CONTROL", 60, "guest TSC of another frequency than the host's"},
		{"GET_TSC_KHZ", capGetTSCKHz, "the frequency of the guest TSC"},
		{"MAX_VCPUS", 66, "vCPUs in a VM at most"},
		{"ONE_REG", 70, "registers of vCPUs by number"},
		{"TSC_DEADLINE_TIMER", 72, "a timer that compares with the TSC"},
		{"SIGNAL_MSI", 77, "message-signalled interrupts"},
		{"READONLY_MEM", 81, "read-only memory slots"},
		{"HYPERV_TIME", 96, "Hyper-V's reference time"},
		{"CHECK_EXTENSION_VM", capCheckExtensionVM, "capabilities of one VM"},
		{"X86_SMM", 117, "system management mode"},
		{"SPLIT_IRQCHIP", 121, "interrupt controllers in the kernel and in QEMU"},
		{"IOEVENTFD_ANY_LENGTH", 122, "event descriptors from guest writes of any size"},
		{"HYPERV_SYNIC", 123, "Hyper-V's interrupt controller"},
		{"ARM_PMU_V3", 126, "performance counters for Arm guests"},
		{"MAX_VCPU_ID", 128, "numbers of vCPUs in a VM, at most"},
		{"X2APIC_API", 129, "APIC numbers of 32 bits"},
		{"IMMEDIATE_EXIT", 136, "a vCPU that can be stopped without a race"},
		{"X86_DISABLE_EXITS", 143, "instructions that need not leave the guest, as bits"},
		{"HYPERV_SYNIC2", 148, "Hyper-V's interrupt controller, without a page overlay"},
		{"HYPERV_VP_INDEX", 149, "Hyper-V's numbers of vCPUs"},
		{"GET_MSR_FEATURES", capGetMSRFeatures, "MSRs that describe features"},
		{"HYPERV_TLBFLUSH", 155, "Hyper-V's TLB flush of other vCPUs"},
		{"NESTED_STATE", 157, "bytes of state of a guest that runs a guest"},
		{"HYPERV_SEND_IPI", 161, "Hyper-V's interrupts between vCPUs"},
		{"HYPERV_ENLIGHTENED_VMCS", 163, "Hyper-V's VMCS, for nested guests on Intel"},
		{"ARM_VM_IPA_SIZE", capARMVMIPASize, "bits of guest-physical addresses at most"},
		{"MANUAL_DIRTY_LOG_PROTECT2", 168, "dirty memory that is cleared in parts"},
		{"ARM_SVE", 170, "Arm's scalable vectors"},
		{"STEAL_TIME", 187, "stolen time that guests can see"},
		{"DIRTY_LOG_RING", 192, "bytes of the ring of dirty pages at most, on x86"},
		{"X86_BUS_LOCK_EXIT", 193, "bus locks of guests that are noticed"},
		{"BINARY_STATS_FD", 203, "counters of VMs and vCPUs"},
		{"XSAVE2", 208, "bytes of extended state"},
		{"PMU_CAPABILITY", 212, "performance counters for guests, as bits"},
		{"VM_TSC_CONTROL", 214, "a default TSC frequency of a VM"},
		{"X86_NOTIFY_VMEXIT", 219, "guests that block the CPU's interrupts are noticed"},
		{"DIRTY_LOG_RING_ACQ_REL", 223, "bytes of the ring of dirty pages at most, on any CPU"},
		{"MEMORY_ATTRIBUTES", 233, "attributes of guest memory, as bits"},
		{"GUEST_MEMFD", 234, "guest memory that the host cannot map"},
		{capVMTypes, 235, "types of VMs, as bits"},
	}
}

const capVMTypes = "VM_TYPES"

// vmTypes names the bits of KVM_CAP_VM_TYPES (Linux
// arch/x86/include/uapi/asm/kvm.h, KVM_X86_DEFAULT_VM and following).
func vmTypes(bits int) []string {
	known := []string{"default", "software-protected", "SEV", "SEV-ES", "SEV-SNP", "TDX"}
	var names []string
	for bit := range 31 {
		switch {
		case bits>>bit&1 == 0:
		case bit < len(known):
			names = append(names, known[bit])
		default:
			names = append(names, fmt.Sprintf("type %d", bit))
		}
	}
	return names
}

// surveyCapabilities asks for each capability.
func surveyCapabilities(ask func(number int) (int, error)) ([]Capability, error) {
	var all []Capability
	for _, wanted := range surveyedCapabilities() {
		value, err := ask(wanted.number)
		if err != nil {
			return nil, fmt.Errorf("KVM_CHECK_EXTENSION %s: %w", wanted.name, err)
		}
		capability := Capability{Name: wanted.name, Number: wanted.number, Value: value}
		if wanted.name == capVMTypes {
			capability.Means = vmTypes(value)
		}
		all = append(all, capability)
	}
	return all, nil
}

// CPUID is one leaf of what KVM can give to a guest's CPU.
type CPUID struct {
	Leaf, Subleaf      uint32
	EAX, EBX, ECX, EDX uint32
}

const cpuidText = "0x%08x 0x%02x: eax=0x%08x ebx=0x%08x ecx=0x%08x edx=0x%08x"

// MarshalText writes a leaf as the program cpuid does with -r.
func (c CPUID) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, cpuidText, c.Leaf, c.Subleaf, c.EAX, c.EBX, c.ECX, c.EDX), nil
}

// UnmarshalText reads what MarshalText wrote.
func (c *CPUID) UnmarshalText(text []byte) error {
	var in CPUID
	if _, err := fmt.Sscanf(string(text), cpuidText, &in.Leaf, &in.Subleaf, &in.EAX, &in.EBX, &in.ECX, &in.EDX); err != nil {
		return fmt.Errorf("parse the CPUID leaf %.100q: %w", text, err)
	}
	*c = in
	return nil
}

// MSR is a model-specific register and its value.
type MSR struct {
	Index uint32
	Value uint64
}

const msrText = "0x%08x: 0x%016x"

// MarshalText writes the number and the value.
func (m MSR) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, msrText, m.Index, m.Value), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *MSR) UnmarshalText(text []byte) error {
	var in MSR
	if _, err := fmt.Sscanf(string(text), msrText, &in.Index, &in.Value); err != nil {
		return fmt.Errorf("parse the MSR %.60q: %w", text, err)
	}
	*m = in
	return nil
}

// Sizes of the structures that KVM fills (Linux include/uapi/linux/kvm.h,
// arch/x86/include/uapi/asm/kvm.h) and bounds of what we let it fill.
const (
	cpuidHeader  = 8  // struct kvm_cpuid2: nent, padding
	cpuidEntry   = 40 // struct kvm_cpuid_entry2: function, index, flags, eax … edx, padding[3]
	maxCPUID     = 256
	msrListEntry = 4  // struct kvm_msr_list: nmsrs, indices
	msrsHeader   = 8  // struct kvm_msrs: nmsrs, pad
	msrEntry     = 16 // struct kvm_msr_entry: index, reserved, data
	maxMSRs      = 256
)

// parseCPUID reads struct kvm_cpuid2 as KVM_GET_SUPPORTED_CPUID filled it.
func parseCPUID(data []byte) ([]CPUID, error) {
	order := binary.NativeEndian
	if len(data) < cpuidHeader {
		return nil, fmt.Errorf("struct kvm_cpuid2 of %d bytes", len(data))
	}
	count := order.Uint32(data)
	if count == 0 || count > maxCPUID || uint64(len(data)) < cpuidHeader+uint64(count)*cpuidEntry {
		return nil, fmt.Errorf("struct kvm_cpuid2 of %d bytes promises %d entries", len(data), count)
	}
	leaves := make([]CPUID, 0, count)
	for entry := range slices.Chunk(data[cpuidHeader:cpuidHeader+count*cpuidEntry], cpuidEntry) {
		leaves = append(leaves, CPUID{
			Leaf: order.Uint32(entry), Subleaf: order.Uint32(entry[4:]),
			EAX: order.Uint32(entry[12:]), EBX: order.Uint32(entry[16:]), ECX: order.Uint32(entry[20:]), EDX: order.Uint32(entry[24:]),
		})
	}
	return leaves, nil
}

// parseMSRList reads struct kvm_msr_list.
func parseMSRList(data []byte) ([]uint32, error) {
	order := binary.NativeEndian
	if len(data) < msrListEntry {
		return nil, fmt.Errorf("struct kvm_msr_list of %d bytes", len(data))
	}
	count := order.Uint32(data)
	if count > maxMSRs || uint64(len(data)) < (1+uint64(count))*msrListEntry {
		return nil, fmt.Errorf("struct kvm_msr_list of %d bytes promises %d MSRs", len(data), count)
	}
	indices := make([]uint32, 0, count)
	for entry := range slices.Chunk(data[msrListEntry:(1+count)*msrListEntry], msrListEntry) {
		indices = append(indices, order.Uint32(entry))
	}
	return indices, nil
}
