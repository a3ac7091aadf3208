package kvmcheck

// FirmwareFacts says what firmware, and the hypervisor above if there is one,
// made of the CPUs' virtualization. The registers are x86's.
type FirmwareFacts struct {
	Offered   Reading[bool]       `json:"offered"`   // CPUID shows VMX or SVM, whatever kernel and firmware made of it
	Driver    Reading[bool]       `json:"driver"`    // /dev/cpu/N/msr is there
	Registers Reading[[]CPUGroup] `json:"registers"` // IA32_FEATURE_CONTROL (Intel) or VM_CR (AMD) of every CPU

	Hypervisor Reading[Hypervisor] `json:"hypervisor"`
}

// CPUGroup is a value and the CPUs that have it.
type CPUGroup struct {
	Value uint64 `json:"value"`
	CPUs  string `json:"cpus"` // cpulist: "0-3,8-11"
}

// Hypervisor is what this kernel runs on; the zero value is bare metal.
type Hypervisor struct {
	Name  string `json:"name,omitempty"` // "KVM", "VMware"; empty: bare metal, or a hypervisor without a name
	Depth int    `json:"depth"`          // hypervisors above, at least: only s390 counts beyond the first
}
