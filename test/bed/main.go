// Command bed starts the project's test beds by hand: real libvirtd with
// domains, a node in a VM, a Kubernetes API server.
package main

import (
	"context"
	"fmt"
	"os"
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
	root.AddCommand()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bed:", err)
		return 1
	}
	return 0
}
