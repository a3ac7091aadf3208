package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// demoPort is the agent's own default; another is taken when it is in use.
const demoPort = "9477"

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
	address, err := demoAddress()
	if err != nil {
		return err
	}
	stop, err := startAgent(agent, address, host.URI())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
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

// demoAddress is the agent's default port on loopback, or a free one.
func demoAddress() (string, error) {
	for _, port := range []string{demoPort, "0"} {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err != nil {
			continue
		}
		address := listener.Addr().String()
		return address, listener.Close()
	}
	return "", errors.New("no port is free on 127.0.0.1")
}

// startAgent starts the agent, which ends with this process in any case, and
// returns when it serves. stop drains it.
func startAgent(agent, address, uri string) (stop func() error, err error) {
	log, err := os.CreateTemp("", "nodeagent-demo-*.log")
	if err != nil {
		return nil, fmt.Errorf("make the agent's log: %w", err)
	}
	remove := func() error { return errors.Join(log.Close(), os.Remove(log.Name())) }
	cmd := exec.Command(agent, "run", "--web.listen-address", address, "--libvirt-uri", uri)
	cmd.Stdout, cmd.Stderr = log, log
	// Ctrl-C ends the demo, and the demo drains the agent.
	ended, err := hosttest.StartTethered(cmd, syscall.SIGTERM)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the agent: %w", err), remove())
	}
	for {
		response, err := http.Get("http://" + address + "/healthz")
		if err == nil {
			_ = response.Body.Close()
			break
		}
		select {
		case err := <-ended:
			text, _ := os.ReadFile(log.Name())
			return nil, errors.Join(fmt.Errorf("the agent ended: %w\n%s", err, text), remove())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		return errors.Join(<-ended, remove())
	}, nil
}
