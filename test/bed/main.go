// Command bed starts the project's test beds by hand: real libvirtd with
// domains, a node in a VM, a Kubernetes API server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := &cobra.Command{
		Use:           "bed",
		Short:         "Start one of the project's test beds by hand",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(libvirtCommand())
	root.AddCommand(vmCommand())
	root.AddCommand(clusterCommand())
	err := root.ExecuteContext(ctx)
	// A command that ran in a bed gives its own exit status.
	var status *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status) && status.ExitCode() > 0:
		return status.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "bed:", err)
	return 1
}
