package kvmcheck

// IOMMUGroup is the smallest set of devices that the IOMMU can tell apart from
// the others: a VM gets all of it or nothing.
type IOMMUGroup struct {
	ID      int                    `json:"id"`
	Type    Reading[string]        `json:"type"` // domain of the host's drivers: DMA, DMA-FQ, identity
	Devices Reading[[]GroupDevice] `json:"devices"`
}

// GroupDevice is a device in a group, mostly a PCI function.
type GroupDevice struct {
	Name   string          `json:"name"`   // "0000:41:00.0"
	Driver Reading[string] `json:"driver"` // empty: none is bound
}

// RemappingFacts says whether the IOMMU checks the interrupts of devices.
//
// The chip's name is what shows that it does: the kernel puts IR- before the
// names of x86 chips whose interrupts are remapped, and Arm's ITS, which knows
// who sends an interrupt, is a chip of its own. The "msi" ranges among a
// group's reserved_regions are there with and without.
type RemappingFacts struct {
	Chip    Reading[string]          `json:"chip"`                  // the first chip that tells; empty: none does
	Capable map[string]Reading[bool] `json:"capable,omitempty"`     // by Intel IOMMU: bit 3 of ecap
	Unsafe  map[string]Reading[bool] `json:"allowUnsafe,omitempty"` // by module: parameter allow_unsafe_interrupts
}

// Candidate is a device that is meant for a VM, or may well be.
type Candidate struct {
	Address string `json:"address"`
	Kind    string `json:"kind"` // "VF", "GPU", "NVMe", "other"
	Driver  string `json:"driver,omitempty"`
	Bound   bool   `json:"bound"`           // its driver is one of VFIO's
	Group   *int   `json:"group,omitempty"` // nil: in none
	// Viable says whether its group can be handed to a VM.
	Viable Reading[bool] `json:"viable"`
	// Offenders are the neighbours in the way: "0000:01:00.1 (snd_hda_intel)".
	Offenders []string `json:"offenders,omitempty"`
}
