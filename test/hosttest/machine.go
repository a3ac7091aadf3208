package hosttest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// MachineExt is the extension of machines that are written by hand;
// test/hosts/README.md has their grammar.
const MachineExt = ".machine"

// machine is a host that somebody wrote down: what is not in it is not there.
type machine struct {
	arch, kernel string
	devices      string            // JSON, as in a recording
	files        map[string]string // content
	links        map[string]string
	dirs         []string
}

var (
	oneLine   = regexp.MustCompile(`^(/\S+) =(?: (.*))?$`)
	oneLink   = regexp.MustCompile(`^(/\S+) -> (\S+)$`)
	oneDir    = regexp.MustCompile(`^(/\S+)/$`)
	oneBlock  = regexp.MustCompile(`^(/\S+|devices):(?: each (\d+)-(\d+))?$`)
	oneSystem = regexp.MustCompile(`^system (\S+) Linux (\S+)$`)
	oneRange  = regexp.MustCompile(`\{(\d+)-(\d+)\}`)
)

// parseMachine reads a machine.
func parseMachine(text string) (*machine, error) {
	m := &machine{files: make(map[string]string), links: make(map[string]string)}
	lines := bufio.NewScanner(strings.NewReader(text))
	var block []string // name, first and last number
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		if inside, indented := strings.CutPrefix(line, "\t"); indented && block != nil {
			m.files[block[1]] += inside + "\n"
			continue
		}
		if err := m.endBlock(block); err != nil {
			return nil, err
		}
		block = oneBlock.FindStringSubmatch(line)
		if block != nil || strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !m.entry(line) {
			return nil, fmt.Errorf("line %d: %q is no entry of a machine", number, line)
		}
	}
	if err := m.endBlock(block); err != nil {
		return nil, err
	}
	if m.arch == "" || m.devices == "" {
		return nil, errors.New("a machine needs its system and its devices")
	}
	return m, lines.Err()
}

// entry takes a line that is whole in itself.
func (m *machine) entry(line string) bool {
	if found := oneSystem.FindStringSubmatch(line); found != nil {
		m.arch, m.kernel = found[1], found[2]
		return true
	}
	for _, line := range expand(line) {
		if found := oneLine.FindStringSubmatch(line); found != nil {
			m.files[found[1]] = found[2] + "\n"
		} else if found := oneLink.FindStringSubmatch(line); found != nil {
			m.links[found[1]] = found[2]
		} else if found := oneDir.FindStringSubmatch(line); found != nil {
			m.dirs = append(m.dirs, found[1])
		} else {
			return false
		}
	}
	return true
}

// expand repeats a line for each number of its {A-B}; {} is that number again.
func expand(line string) []string {
	found := oneRange.FindStringSubmatch(line)
	if found == nil {
		return []string{line}
	}
	return repeat(strings.Replace(line, found[0], "{}", 1), found[1], found[2])
}

func repeat(text, first, last string) []string {
	from, err := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	var all []string
	for n := from; n <= to && err == nil && err2 == nil; n++ {
		all = append(all, strings.ReplaceAll(text, "{}", strconv.Itoa(n)))
	}
	return all
}

// endBlock makes of the lines under a block's head what the head says.
func (m *machine) endBlock(block []string) error {
	if block == nil {
		return nil
	}
	name := block[1]
	if m.files[name] == "" {
		return fmt.Errorf("%s: nothing below it", name)
	}
	switch {
	case name == "devices":
		m.devices = m.files[name]
		delete(m.files, name)
	case block[2] != "":
		m.files[name] = strings.Join(repeat(m.files[name], block[2], block[3]), "")
	}
	return nil
}

// write makes the machine's tree below dir, with a manifest that lists every
// directory, so that what is missing is known to be absent.
func (m *machine) write(dir string) error {
	for _, name := range m.dirs {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	for name, content := range m.files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for name, target := range m.links {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	manifest := hostfs.Manifest{Version: 1, Arch: m.arch, Kernel: m.kernel, Devices: json.RawMessage(m.devices), Listed: make(map[string][]string)}
	err := filepath.WalkDir(dir, func(full string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		entries, err := os.ReadDir(full)
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(full, dir), "/")
		manifest.Listed[name] = []string{}
		for _, entry := range entries {
			manifest.Listed[name] = append(manifest.Listed[name], entry.Name())
		}
		return err
	})
	if err != nil {
		return err
	}
	for name, target := range m.links {
		if names, isDir := manifest.Listed[path.Join(path.Dir(name), target)]; isDir {
			manifest.Listed[name] = names
		}
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "nodeagent-capture.json"), text, 0o644)
}

// BuildMachine makes a recording of a machine that is written by hand, as
// nodeagent capture would on the machine itself, and returns its path.
func BuildMachine(t testing.TB, name string) string {
	t.Helper()
	EmptyPCIDB(t)
	recording := filepath.Join(t.TempDir(), "recording.tar.gz")
	if err := captureMachine(t, name, recording); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return recording
}

func captureMachine(t testing.TB, name, recording string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	m, err := parseMachine(string(text))
	if err != nil {
		return err
	}
	dir := t.TempDir()
	if err := m.write(dir); err != nil {
		return err
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		return err
	}
	host, err := kvmcheck.Open(root)
	if err != nil {
		return err
	}
	_, recorded, err := kvmcheck.Capture(t.Context(), host)
	if err != nil {
		return err
	}
	file, err := os.Create(recording)
	if err != nil {
		return err
	}
	return errors.Join(recorded.WriteArchive(file, recorded.Manifest), file.Close())
}
