package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/test/libvirt"
)

func libvirtCommand() *cobra.Command {
	var vms int
	var options libvirt.Options
	command := &cobra.Command{
		Use:   "libvirt [-- command...]",
		Short: "Run libvirtd with small domains until Ctrl-C, or as long as the command runs",
		Long: `Run a private libvirtd with small domains until Ctrl-C, or as long as the
command runs, which finds libvirtd through LIBVIRT_DEFAULT_URI.

The first domain moves data through its disk and its NIC, the second keeps a
processor busy, the others idle.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLibvirt(cmd.Context(), cmd.OutOrStdout(), options, demoDomains(vms), args)
		},
	}
	command.Flags().IntVar(&vms, "vms", 3, "how many domains to start")
	command.Flags().BoolVar(&options.HostNetwork, "host-network", false, "leave the domains' taps in this network namespace")
	return command
}

func demoDomains(count int) []libvirt.Domain {
	workloads := []libvirt.Workload{libvirt.DiskAndNet, libvirt.Busy}
	var domains []libvirt.Domain
	for i := range count {
		domain := libvirt.Domain{Name: fmt.Sprintf("vm-%d", i+1), NICs: []libvirt.NIC{{}}}
		if i < len(workloads) {
			domain.Workload = workloads[i]
		}
		domains = append(domains, domain)
	}
	return domains
}

// runLibvirt runs a bed for a person, or for the command in args.
func runLibvirt(ctx context.Context, out io.Writer, options libvirt.Options, domains []libvirt.Domain, args []string) (err error) {
	host, err := libvirt.Start(ctx, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	if err := host.StartDomains(ctx, domains...); err != nil {
		return err
	}
	if len(args) > 0 {
		return runWithLibvirt(ctx, host, args)
	}
	_, err = fmt.Fprintf(out, `libvirtd serves at %s; domains: %d
In another shell:

  export LIBVIRT_DEFAULT_URI='%s'
  virsh list
  virsh domstats

Their processes, network and /run are those of process %d:

  nsenter --target %d --mount --pid --net

Ctrl-C stops it all and removes it.
`, host.Socket(), len(domains), host.URI(), host.Init(), host.Init())
	if err != nil {
		return fmt.Errorf("print how to use libvirtd: %w", err)
	}
	<-ctx.Done()
	return nil
}

// runWithLibvirt runs the command on the bed's libvirtd.
func runWithLibvirt(ctx context.Context, host *libvirt.Host, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "LIBVIRT_DEFAULT_URI="+host.URI())
	// libvirtd stays up until the command has ended.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	return nil
}
