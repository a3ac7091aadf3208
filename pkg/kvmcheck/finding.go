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
	Skipped     Level = "skipped"     // nobody asks; the finding is left out
)

// Key names the check: "kvm/device".
func (f Finding) Key() string { return f.Area + "/" + f.Check }

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

// found is a finding that is fine.
func found(area, check, message string) Finding {
	return Finding{Area: area, Check: check, Status: Ready, Message: message}
}

// lacking is a finding that is definitely not fine.
func lacking(area, check string, reason Reason, message, remedy string) Finding {
	return Finding{Area: area, Check: check, Status: NotReady, Reason: reason, Message: message, Remedy: remedy}
}

// undecided is a finding about which nobody can tell.
func undecided(area, check, message string) Finding {
	return Finding{
		Area: area, Check: check, Status: Unknown, Reason: ReadFailed, Message: message,
		Remedy: "run as root on the host, or give the container the host's /proc, /sys and /dev; then look at the cause named here",
	}
}
