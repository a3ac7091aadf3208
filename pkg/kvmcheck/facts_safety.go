package kvmcheck

// TimeFacts says with what the kernel tells the time.
type TimeFacts struct {
	Clocksource Reading[string]   `json:"clocksource"` // "tsc", "arch_sys_counter"
	Available   Reading[[]string] `json:"available"`   // what the kernel holds fit for use
	TSCKHz      Reading[uint64]   `json:"tscKHz"`      // few kernels say it
}

// SafetyFacts says how well VMs are kept from the host and from each other.
type SafetyFacts struct {
	Vulnerabilities Reading[[]Vulnerability] `json:"vulnerabilities"` // those that matter to hosts of VMs
	SMTActive       Reading[bool]            `json:"smtActive"`       // CPUs share cores now
	SMTControl      Reading[string]          `json:"smtControl"`      // "on", "off", "forceoff", "notsupported"
	Lockdown        Reading[string]          `json:"lockdown"`        // "none", "integrity", "confidentiality"
	SELinux         Reading[string]          `json:"selinux"`         // "off", "permissive", "enforcing"
	AppArmor        Reading[bool]            `json:"apparmor"`
}

// Vulnerability is one file of /sys/devices/system/cpu/vulnerabilities.
type Vulnerability struct {
	Name string          `json:"name"` // "l1tf"
	Text Reading[string] `json:"text"` // "Mitigation: PTE Inversion; VMX: cache flushes, SMT vulnerable"
}
