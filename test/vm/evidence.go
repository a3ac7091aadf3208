package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// tailLines is how much of the console goes into an error.
const tailLines = 40

// Keep copies what the machine has left (its console, QEMU's messages and, if
// the guest still answers, its dmesg) to a new folder in the cache, and
// returns that.
func (m *Machine) Keep(ctx context.Context) (string, error) {
	parent, err := hosttest.Cache("failures")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "vm-"+m.Profile.Name+"-")
	if err != nil {
		return "", fmt.Errorf("make a folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dmesg"), []byte(m.dmesg(ctx)), 0o644); err != nil {
		return "", fmt.Errorf("keep dmesg: %w", err)
	}
	for _, name := range []string{"console", "qemu.log"} {
		if err := copyFile(m.file(name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return dir, nil
}

// dmesg returns the guest's kernel log, or why there is none.
func (m *Machine) dmesg(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, m.grace)
	defer cancel()
	r, err := m.Exec(ctx, "dmesg")
	if err != nil {
		return fmt.Sprintf("no dmesg: %v\n", err)
	}
	return r.Stdout + r.Stderr
}

// consoleTail returns the end of what the kernel and QEMU have printed.
func (m *Machine) consoleTail() string {
	var text strings.Builder
	for _, name := range []string{"console", "qemu.log"} {
		fmt.Fprintf(&text, "--- end of the %s:\n%s", name, tail(m.read(name), tailLines))
	}
	return text.String()
}

// whyStopped says what ended a guest that nobody has ended.
func (m *Machine) whyStopped() error {
	<-m.down // or the console may not be whole
	if line := panicLine(m.read("console")); line != "" {
		return fmt.Errorf("the guest stopped: %s", line)
	}
	return errors.New("the guest stopped")
}

// read returns what the machine has printed so far, without what QEMU says
// about every CPU.
func (m *Machine) read(name string) string {
	content, err := os.ReadFile(m.file(name))
	if err != nil {
		return err.Error()
	}
	var text strings.Builder
	for line := range strings.Lines(string(content)) {
		if !strings.Contains(line, "TCG doesn't support requested feature") {
			text.WriteString(line)
		}
	}
	return text.String()
}

// panicLine returns the line in which the kernel says why it gives up.
func panicLine(console string) string {
	for line := range strings.Lines(console) {
		if _, reason, ok := strings.Cut(line, "Kernel panic - "); ok {
			return "Kernel panic - " + strings.TrimSpace(reason)
		}
	}
	return ""
}

// tail returns the last n lines of what a terminal would have shown.
func tail(text string, n int) string {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\r", ""))
	if text == "" {
		return "(nothing)\n"
	}
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n") + "\n"
}
