package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/virtnode/nodeagent/test/exporter"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// demoRefresh is the time between two looks at /metrics.
const demoRefresh = 2 * time.Second

// runDemo shows the readiness of this host, then live metrics until show ends.
// What takes longer than the show, starting and stopping, is bounded by ctx.
func runDemo(ctx, show context.Context, agent string, out io.Writer) (err error) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(out, format+"\n", args...) }
	say(">> can this host run VMs? nodeagent check\n")
	if err := runCheck(ctx, agent, out); err != nil {
		return err
	}
	say("\n>> starting a private libvirtd and three small VMs (emulated, so that they run on any host)")
	host, err := libvirt.Start(ctx, libvirt.Options{})
	if err != nil {
		return err
	}
	defer func() {
		say(">> stopping the VMs and libvirtd, and removing all they left")
		err = errors.Join(err, host.Close())
	}()
	err = host.StartDomains(ctx,
		libvirt.Domain{Name: "idle", NICs: []libvirt.NIC{{}}},
		libvirt.Domain{Name: "busy", VCPUs: 2, NICs: []libvirt.NIC{{}}, Workload: libvirt.Busy},
		libvirt.Domain{Name: "traffic", NICs: []libvirt.NIC{{}}, Workload: libvirt.DiskAndNet},
	)
	if err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C came first
		}
		return err
	}
	running, err := exporter.Start(ctx, exporter.Agent(agent, exporter.AgentOptions{URIs: []string{host.URI()}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.Close()) }()
	address := running.Address
	say(">> nodeagent run serves http://%s/metrics (and /report, /readyz, and a page to start from)", address)
	say(">> in another shell: curl -s http://%s/metrics | grep virtnode_vm_\n", address)
	// A show that was over before the VMs ran is still shown for one look.
	return watch(ctx, show, "http://"+address+"/metrics", out)
}

// runCheck prints the readiness table. A host that is not ready is an answer
// too; only a check that failed ends the demo.
func runCheck(ctx context.Context, agent string, out io.Writer) error {
	cmd := exec.CommandContext(ctx, agent, "check")
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	err := cmd.Run()
	var status *exec.ExitError
	if err == nil || errors.As(err, &status) && status.ExitCode() == 1 {
		return nil
	}
	return fmt.Errorf("run %s check: %w", agent, err)
}
