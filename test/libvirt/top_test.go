package libvirt_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// terminal is a pseudo-terminal (man 4 pts) and what was written to it.
type terminal struct {
	master, line *os.File

	mu   sync.Mutex
	seen strings.Builder
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	line, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetWinsize(int(line.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}))
	term := &terminal{master: master, line: line}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		// Without a line the read of the master ends.
		must(t, errors.Join(line.Close()))
		<-ended
		must(t, master.Close())
	})
	return term
}

func (term *terminal) shows(text string) error {
	term.mu.Lock()
	defer term.mu.Unlock()
	if !strings.Contains(term.seen.String(), text) {
		return fmt.Errorf("the terminal does not show %q:\n%s", text, term.seen.String())
	}
	return nil
}

func (term *terminal) press(t *testing.T, keys string) {
	t.Helper()
	_, err := term.master.WriteString(keys)
	must(t, err)
}

// TestTopOnATerminal presses keys as a person does.
func TestTopOnATerminal(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "busy", Workload: libvirt.Busy})
	term := newTerminal(t)
	before, err := unix.IoctlGetTermios(int(term.line.Fd()), unix.TCGETS)
	must(t, err)
	cmd := exec.Command(hosttest.BuildAgent(t), "top", "--libvirt-uri", host.URI(), "--interval", "500ms")
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.line, term.line, term.line
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	eventually(t, "the machine on the screen", func() error { return errors.Join(term.shows("busy"), term.shows("running")) })
	term.press(t, "n")
	eventually(t, "another order", func() error { return term.shows("by net") })
	must(t, unix.IoctlSetWinsize(int(term.line.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 40}))
	must(t, cmd.Process.Signal(unix.SIGWINCH)) // it has no controlling terminal that would
	term.press(t, "d")
	eventually(t, "a narrow screen", func() error { return term.shows("VM               STATE \x1b[7m DELAY%") })
	term.press(t, "q")
	must(t, <-ended)
	eventually(t, "the screen that was before", func() error { return term.shows("\x1b[?1049l") })
	after, err := unix.IoctlGetTermios(int(term.line.Fd()), unix.TCGETS)
	must(t, err)
	if *before != *after {
		t.Errorf("the terminal was %+v, is %+v", *before, *after)
	}
}

// TestTopAsJSON holds the numbers of a script against what is known.
func TestTopAsJSON(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "busy", Workload: libvirt.Busy}, libvirt.Domain{Name: "idle"}, libvirt.Domain{Name: "traffic", Workload: libvirt.DiskAndNet, NICs: []libvirt.NIC{{}}})
	agent := hosttest.BuildAgent(t)
	// A guest that starts keeps its CPU busy, and has sent nothing yet.
	eventually(t, "the guests do what they are there for", func() error { return topShows(t, host, agent) })
}

func topShows(t *testing.T, host *libvirt.Host, agent string) error {
	t.Helper()
	out, err := exec.Command(agent, "top", "--libvirt-uri", host.URI(), "--interval", "2s", "-o", "json").Output()
	must(t, err)
	var shown struct {
		Troubles []string
		VMs      []struct {
			Name, UUID, State string
			CPUPercent, VCPUs, RunQueueDelayPercent, ResidentBytes,
			WriteBytesPerSecond, NetworkPacketsPerSecond *float64
		}
	}
	must(t, json.Unmarshal(out, &shown))
	id := uuids(t, host, "busy", "idle", "traffic")
	found := 0
	var order []string
	for _, vm := range shown.VMs {
		if vm.UUID == "" || id[vm.Name] != vm.UUID {
			continue // of this machine itself
		}
		found++
		order = append(order, vm.Name)
		if vm.State != "running" || vm.CPUPercent == nil || vm.VCPUs == nil || *vm.VCPUs != 1 || vm.RunQueueDelayPercent == nil || vm.ResidentBytes == nil || *vm.ResidentBytes < 10<<20 {
			return fmt.Errorf("%s: %s", vm.Name, out)
		}
		if vm.Name == "traffic" && (vm.NetworkPacketsPerSecond == nil || *vm.NetworkPacketsPerSecond == 0 || vm.WriteBytesPerSecond == nil) {
			return fmt.Errorf("no traffic: %s", out)
		}
	}
	if found != 3 || len(shown.Troubles) > 0 || order[0] != "busy" {
		return fmt.Errorf("%d of 3 machines, sorted %q:\n%s", found, order, out)
	}
	return nil
}
