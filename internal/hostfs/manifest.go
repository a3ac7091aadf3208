package hostfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// manifestName is the manifest's place in an archive.
const manifestName = "nodeagent-capture.json"

// hang stands in Faults for an operation that never returned.
const hang = "HANG"

var errHang = errors.New("hung until the recording was closed")

// manifestVersion is raised when an older agent would misread a recording.
const manifestVersion = 1

// Manifest says of a recording what files cannot: what was not there, what
// could not be read, and what the devices answered. It keeps "absent" apart
// from "nobody looked", so a newer probe on an old recording is undecided
// rather than wrong.
type Manifest struct {
	Version int       `json:"version"`
	Agent   string    `json:"agent"`  // version of the agent that recorded
	Kernel  string    `json:"kernel"` // uname -r
	Arch    string    `json:"arch"`   // GOARCH
	Time    time.Time `json:"time"`
	Masked  bool      `json:"masked"` // serial numbers, UUIDs and MAC addresses replaced

	Listed  map[string][]string `json:"listed,omitempty"`  // directories and their names
	Present []string            `json:"present,omitempty"` // seen, not read
	Absent  []string            `json:"absent,omitempty"`  // looked for, not there
	Faults  map[string]string   `json:"faults,omitempty"`  // "OP PATH" to errno name, text, or HANG

	// Devices is what device nodes answered, in the prober's own form.
	Devices json.RawMessage `json:"devices,omitempty"`
}

func readManifest(dir string) (*Manifest, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	return parseManifest(data)
}

func parseManifest(data []byte) (*Manifest, error) {
	manifest := new(Manifest)
	if err := json.Unmarshal(data, manifest); err != nil {
		return nil, fmt.Errorf("parse %s: %w", manifestName, err)
	}
	if manifest.Version != manifestVersion {
		return nil, fmt.Errorf("%s has version %d; this agent reads version %d", manifestName, manifest.Version, manifestVersion)
	}
	if manifest.Faults == nil {
		manifest.Faults = make(map[string]string)
	}
	slices.Sort(manifest.Present)
	slices.Sort(manifest.Absent)
	return manifest, nil
}

// fault returns the recorded error of an operation.
func (m *Manifest) fault(op, name string) error {
	if m == nil {
		return nil
	}
	text, found := m.Faults[op+" "+name]
	if !found {
		return nil
	}
	if text == hang {
		return errHang
	}
	for errno := unix.Errno(1); errno < 200; errno++ {
		if unix.ErrnoName(errno) == text {
			return errno
		}
	}
	return errors.New(text)
}

// list returns the recorded names in a directory.
func (m *Manifest) list(name string) ([]string, error) {
	if names, found := m.Listed[name]; found {
		return slices.Clone(names), nil
	}
	return nil, m.absence(name)
}

// present reports whether a path was seen without its content being recorded.
func (m *Manifest) present(name string) bool {
	if m == nil {
		return false
	}
	if _, found := slices.BinarySearch(m.Present, name); found {
		return true
	}
	return slices.Contains(m.Listed[path.Dir(name)], path.Base(name))
}

// absence tells a path that was not there from one that was not recorded,
// when the unpacked tree does not have it.
func (m *Manifest) absence(name string) error {
	for p := name; p != "/" && p != "."; p = path.Dir(p) {
		if _, found := slices.BinarySearch(m.Absent, p); found {
			return unix.ENOENT
		}
		if names, listed := m.Listed[path.Dir(p)]; listed && !slices.Contains(names, path.Base(p)) {
			return unix.ENOENT
		}
	}
	return ErrNotRecorded
}
