package qemu

import "time"

// SourceProc is the name of the source that is not a daemon: /proc.
const SourceProc = "proc"

// Class is a cost class; see the package comment.
type Class string

// The cost classes.
const (
	Kernel  Class = "kernel"
	Light   Class = "light"
	Monitor Class = "monitor"
	Control Class = "control" // of libvirt: events, and the XML that they change
)

// Snapshot is what one collection saw. Its memory belongs to the collector,
// which fills it again once everybody who got it has called Release.
type Snapshot struct {
	Time    time.Time // when it was put together
	Sources []SourceState
	VMs     []VM // sorted by namespace, name and UUID, all different
	// Duplicates counts machines left out because another one has the same
	// namespace, name and UUID.
	Duplicates int

	flight *flight // that made it; nil when it is nobody else's
}

// Release gives the memory back. Whoever forgets it costs the collector an
// allocation; whoever reads on, or calls it again, finds nothing.
func (s *Snapshot) Release() {
	if f := s.flight; f != nil {
		*s = Snapshot{Time: s.Time}
		f.release()
	}
}

// SourceState is the health of one cost class of one source.
type SourceState struct {
	Source string
	Class  Class
	Reason Reason
	// Message is the last error; empty when Reason is Ready.
	Message     string
	LastSuccess time.Time // zero: never
	// Abandoned counts calls given up at their deadline.
	Abandoned uint64
	// Unused counts the fields of the last answer that mean nothing to us.
	Unused int
}

// Up reports whether the source's last reading succeeded.
func (s SourceState) Up() bool { return s.Reason == Ready }

// Health is how one machine's monitor class is.
type Health struct {
	Reason      Reason    // empty: no daemon is asked about it
	LastSuccess time.Time // when it last told everything; zero: never
	Age         Num       // nanoseconds since then
	Abandoned   uint64    // calls given up at their deadline
}

// Reason says in one word how a source is, or a machine.
type Reason string

// The reasons.
const (
	Ready            Reason = "Ready"
	Pending          Reason = "Pending" // has not answered yet
	SocketMissing    Reason = "SocketMissing"
	SocketRefused    Reason = "SocketRefused" // nobody listens
	PermissionDenied Reason = "PermissionDenied"
	AuthRequired     Reason = "AuthRequired"
	CallTimeout      Reason = "CallTimeout"
	ConnectionLost   Reason = "ConnectionLost"
	BadReply         Reason = "BadReply"
	CallRefused      Reason = "CallRefused" // the daemon answered with an error
	Failed           Reason = "Failed"
	Busy             Reason = "Busy"        // the machine is; libvirt told what it could
	TooManyHung      Reason = "TooManyHung" // not asked, because too many others hang
)
