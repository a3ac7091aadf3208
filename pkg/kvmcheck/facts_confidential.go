package kvmcheck

// ConfidentialFacts says which VMs can be kept secret from their host here.
type ConfidentialFacts struct {
	// Parameters are KVM's own words by "module.parameter"; what the kernel
	// does not have is not in it.
	Parameters map[string]Reading[bool] `json:"parameters,omitempty"`
	SEVDevice  Reading[bool]            `json:"sevDevice"` // /dev/sev, AMD's security processor
	SEV        Reading[SEVCapability]   `json:"sev"`
	// Pools are ASIDs and keys by resource of the misc cgroup: "sev", "sev_es", "tdx".
	Pools Reading[map[string]Pool] `json:"pools"`

	SecureExecution Reading[bool] `json:"secureExecution"` // s390
}

// SEVCapability is CPUID leaf 0x8000001f: what an AMD CPU can do, whatever
// kernel and firmware made of it.
type SEVCapability struct {
	SEV       bool   `json:"sev"`
	SEVES     bool   `json:"sevES"`
	SEVSNP    bool   `json:"sevSNP"`
	ASIDs     uint32 `json:"asids"`     // the highest ASID of an encrypted guest
	FirstASID uint32 `json:"firstASID"` // the lowest one for plain SEV: those below are for SEV-ES and SEV-SNP
}

// Pool is how much of a limited resource there is, and is taken.
type Pool struct {
	Capacity uint64 `json:"capacity"`
	Used     uint64 `json:"used"`
}
