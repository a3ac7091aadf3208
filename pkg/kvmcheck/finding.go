package kvmcheck

// Status is a verdict. The zero value is Unknown: undecided is never "no".
type Status string

// The three verdicts.
const (
	Unknown  Status = ""
	Ready    Status = "Ready"
	NotReady Status = "NotReady"
)

// String returns the verdict's name, "Unknown" for the zero value.
func (s Status) String() string {
	if s == Unknown {
		return "Unknown"
	}
	return string(s)
}

// MarshalText writes the verdict's name.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a verdict's name; any other text is Unknown.
func (s *Status) UnmarshalText(text []byte) error {
	switch Status(text) {
	case Ready, NotReady:
		*s = Status(text)
	default:
		*s = Unknown
	}
	return nil
}

// Level says what a finding that is not Ready means for the node.
type Level string

// The levels.
const (
	Required    Level = "required"    // VMs cannot run without it
	Recommended Level = "recommended" // VMs run, but not as they should
	Optional    Level = "optional"    // some VMs want it
)

// Finding is the verdict on one thing that VMs need of a host.
type Finding struct {
	Area    string `json:"area"`  // "kvm"
	Check   string `json:"check"` // "device"
	Status  Status `json:"status"`
	Level   Level  `json:"level"`
	Reason  Reason `json:"reason,omitempty"` // empty when Ready
	Message string `json:"message"`          // what was seen, with the file or ioctl that showed it
	Remedy  string `json:"remedy,omitempty"` // what a person can run
}

// Reason is the cause of a finding that is not Ready.
type Reason string

// The reasons. Each stands for one cause and one remedy.
const (
	// ReadFailed: the file or device could not be read, so nobody can tell.
	ReadFailed Reason = "ReadFailed"
	// CPUFlagMissing: the CPU has no virtualization extension, or firmware hides it.
	CPUFlagMissing Reason = "CPUFlagMissing"
	// CPUFlagPartial: some CPUs have the extension and others do not.
	CPUFlagPartial Reason = "CPUFlagPartial"
	// NestedNotExposed: this machine is a VM whose hypervisor does not pass the extension on.
	NestedNotExposed Reason = "NestedNotExposed"
	// FlagUndefined: this architecture has no CPU flag for virtualization.
	FlagUndefined Reason = "FlagUndefined"
	// ModuleNotLoaded: a kernel module is neither loaded nor built in.
	ModuleNotLoaded Reason = "ModuleNotLoaded"
	// DeviceMissing: the device node does not exist.
	DeviceMissing Reason = "DeviceMissing"
	// PermissionDenied: opening or using the device is not allowed.
	PermissionDenied Reason = "PermissionDenied"
	// DeviceBusy: somebody else holds the device or the CPU's virtualization.
	DeviceBusy Reason = "DeviceBusy"
	// DeviceUnusable: the device node is there, but nothing answers behind it.
	DeviceUnusable Reason = "DeviceUnusable"
	// APIVersionMismatch: KVM speaks another API than every user of it.
	APIVersionMismatch Reason = "APIVersionMismatch"
	// OutOfMemory: the kernel had no memory for a VM.
	OutOfMemory Reason = "OutOfMemory"
	// GuestFailed: KVM took the guest but did not run it.
	GuestFailed Reason = "GuestFailed"
	// GuestTimeout: the guest did not halt in time.
	GuestTimeout Reason = "GuestTimeout"
	// ProofNotImplemented: no guest code exists for this architecture.
	ProofNotImplemented Reason = "ProofNotImplemented"
	// NestedDisabled: guests of this host cannot run guests themselves.
	NestedDisabled Reason = "NestedDisabled"
	// NoHugepages: no huge page of this size is set aside.
	NoHugepages Reason = "NoHugepages"
	// HugepagesUnsupported: the kernel or the CPU has no huge pages.
	HugepagesUnsupported Reason = "HugepagesUnsupported"
	// NoHugepagesFree: all huge pages of this size are taken.
	NoHugepagesFree Reason = "NoHugepagesFree"
	// IOMMUNotInFirmware: no ACPI table describes an IOMMU.
	IOMMUNotInFirmware Reason = "IOMMUNotInFirmware"
	// IOMMUDisabled: firmware describes an IOMMU, and the kernel does not use it.
	IOMMUDisabled Reason = "IOMMUDisabled"
	// IOMMUAbsent: the kernel has no IOMMU groups and firmware describes no IOMMU.
	IOMMUAbsent Reason = "IOMMUAbsent"
	// NoSRIOVDevice: no PCI device has the SR-IOV capability.
	NoSRIOVDevice Reason = "NoSRIOVDevice"
	// CgroupNotMounted: no cgroup hierarchy is mounted.
	CgroupNotMounted Reason = "CgroupNotMounted"
	// ControllerMissing: a cgroup controller is not available.
	ControllerMissing Reason = "ControllerMissing"
)

// found is a finding that is fine.
func found(area, check string, level Level, message string) Finding {
	return Finding{Area: area, Check: check, Level: level, Status: Ready, Message: message}
}

// lacking is a finding that is definitely not fine.
func lacking(area, check string, level Level, reason Reason, message, remedy string) Finding {
	return Finding{Area: area, Check: check, Level: level, Status: NotReady, Reason: reason, Message: message, Remedy: remedy}
}

// undecided is a finding about which nobody can tell.
func undecided(area, check string, level Level, message string) Finding {
	return Finding{
		Area: area, Check: check, Level: level, Status: Unknown, Reason: ReadFailed, Message: message,
		Remedy: "run as root on the host, or give the container the host's /proc, /sys and /dev; then look at the cause named here",
	}
}
