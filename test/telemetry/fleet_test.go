package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// fleetSize is how many machines the shared bed has: a fault of one must not
// show on the others.
const fleetSize = 10

// agentEnv names a binary of the agent to test, in place of one from the source.
const agentEnv = "NODEAGENT_TEST_AGENT"

// shared is what tests have in common, made when the first one asks for it.
var shared struct {
	binary  func() (string, error)
	fleet   func() (*fleet, error)
	closers []func() error
}

func TestMain(m *testing.M) {
	shared.binary = sync.OnceValues(func() (string, error) {
		if made := os.Getenv(agentEnv); made != "" {
			return made, nil
		}
		dir, err := os.MkdirTemp("", "nodeagent-telemetry-")
		if err != nil {
			return "", err
		}
		shared.closers = append(shared.closers, func() error { return os.RemoveAll(dir) })
		binary := dir + "/nodeagent"
		return binary, hosttest.Build(binary, "./cmd/nodeagent")
	})
	shared.fleet = sync.OnceValues(startFleet)
	code := m.Run()
	for _, end := range shared.closers {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// fleet is a bed with machines, by name and by UUID.
type fleet struct {
	*libvirt.Host
	names []string
	uuids map[string]string
}

// startFleet starts the shared bed. Its machines have a disk and a NIC, and
// the first does something with them; taps keep their
// names when a machine starts anew.
func startFleet() (*fleet, error) {
	ctx := context.Background()
	host, err := libvirt.Start(ctx, libvirt.Options{})
	if err != nil {
		return nil, err
	}
	shared.closers = append(shared.closers, host.Close)
	domains := make([]libvirt.Domain, fleetSize)
	for i := range domains {
		domains[i] = libvirt.Domain{Name: fmt.Sprintf("vm-%d", i), NICs: []libvirt.NIC{{Tap: fmt.Sprintf("tap-%d", i)}}}
	}
	domains[0].Workload = libvirt.DiskAndNet
	if err := host.StartDomains(ctx, domains...); err != nil {
		return nil, err
	}
	return fleetOf(ctx, host, domains)
}

func fleetOf(ctx context.Context, host *libvirt.Host, domains []libvirt.Domain) (*fleet, error) {
	f := &fleet{Host: host, uuids: make(map[string]string)}
	for _, domain := range domains {
		uuid, err := host.UUID(ctx, domain.Name)
		if err != nil {
			return nil, err
		}
		f.names, f.uuids[domain.Name] = append(f.names, domain.Name), uuid
	}
	return f, nil
}

// sharedFleet returns the shared bed, whose machines all run.
func sharedFleet(t *testing.T) *fleet {
	t.Helper()
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	f, err := shared.fleet()
	if err != nil {
		t.Fatal(err)
	}
	// A test that failed may have left its fault behind.
	if err := f.ResumeDaemon(); err != nil {
		must(t, f.StartDaemon(t.Context()))
	}
	for _, name := range f.names {
		_ = f.Resume(name)
	}
	return f
}

// newFleet starts a bed of the test's own.
func newFleet(t *testing.T, options libvirt.Options, domains ...libvirt.Domain) *fleet {
	t.Helper()
	host := libvirt.New(t, options)
	must(t, host.StartDomains(t.Context(), domains...))
	f, err := fleetOf(t.Context(), host, domains)
	must(t, err)
	return f
}

// These are shorter than the agent's own, so that tests are: until a call is
// given up, and until a machine is asked again that stands still.
const (
	callTimeout = 2 * time.Second
	maxAge      = 6 * time.Second
)

// startAgent runs the agent on libvirt daemons.
func startAgent(t *testing.T, config string, uris ...string) *exporter.Process {
	t.Helper()
	return startAgentIn(t, exporter.AgentOptions{URIs: uris, Config: fmt.Sprintf("telemetry:\n  callTimeout: %v\n  maxAge: %v\n%s", callTimeout, maxAge, config)})
}

func startAgentIn(t *testing.T, options exporter.AgentOptions) *exporter.Process {
	t.Helper()
	binary, err := shared.binary()
	must(t, err)
	return start(t, exporter.Agent(binary, options))
}

func start(t *testing.T, program exporter.Program) *exporter.Process {
	t.Helper()
	process, err := exporter.Start(t.Context(), program)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s wrote:\n%s", program.Name, process.Log())
		}
		if err := process.Close(); err != nil {
			t.Error(err)
		}
	})
	return process
}

func scrape(t *testing.T, process *exporter.Process) *exporter.Page {
	t.Helper()
	page, err := process.Scrape(t.Context())
	must(t, err)
	return page
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long anything that should happen may take on a busy machine.
const patience = 90 * time.Second

// eventually waits for a condition, or ends the test with what stands in its way.
func eventually(t *testing.T, what string, met func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	err := hosttest.Poll(ctx, what, func() (bool, error) {
		last = met()
		return last == nil, nil
	})
	if err != nil {
		t.Fatal(errors.Join(err, last))
	}
}
