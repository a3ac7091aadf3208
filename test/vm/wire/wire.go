// Package wire is what the host and the guest of a test VM say to each other:
// JSON messages, one after the other, over a virtio-serial port.
package wire

const (
	// Port is the name of the virtio-serial port.
	Port = "agent"
	// ShareTag names the host's folder on the 9p transport.
	ShareTag = "share"
	// ShareDir is where the guest mounts it.
	ShareDir = "/share"
)

// Request goes from the host to the guest. ID is the host's number for one
// command; exactly one of the other fields is set.
type Request struct {
	ID    int    `json:"id"`
	Run   *Run   `json:"run,omitempty"`
	Stdin []byte `json:"stdin,omitempty"`
	// EOF closes the command's standard input.
	EOF bool `json:"eof,omitempty"`
	// Kill ends the command and what it started.
	Kill bool `json:"kill,omitempty"`
}

// Run starts a command.
type Run struct {
	Argv []string `json:"argv"`
	Dir  string   `json:"dir,omitempty"`
	// Env is added to the guest's own environment.
	Env []string `json:"env,omitempty"`
	// Stdin says that input will follow, ended by EOF; without it the
	// command reads /dev/null.
	Stdin bool `json:"stdin,omitempty"`
	// TTY gives the command a terminal of that size, which carries all of
	// its input and output (as Stdout).
	TTY *Size `json:"tty,omitempty"`
}

// Size is the size of a terminal.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Event goes from the guest to the host.
type Event struct {
	ID int `json:"id,omitempty"`
	// Ready is the kernel's release, and the guest's first message.
	Ready  string `json:"ready,omitempty"`
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	// Exit is the command's status, and its last message.
	Exit *int `json:"exit,omitempty"`
	// Error says why the command could not be run; its last message, too.
	Error string `json:"error,omitempty"`
}
