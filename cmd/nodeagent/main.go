// Command nodeagent answers three questions about a KubeVirt node: can it run
// VMs, are its NICs ready for them, and how are its VMs doing?
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses. Those of check are part of its interface.
const (
	exitOK        = 0
	exitNotReady  = 1 // check: something required is definitely missing
	exitUndecided = 2 // check: nobody can tell, or the check itself failed
	exitFailed    = 1 // every other command
)

// exitError ends the program with a status; what is to be said has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := emptyPCIDB(); err != nil {
		fmt.Fprintf(os.Stderr, "nodeagent: %v\n", err)
		return exitFailed
	}
	root := newRoot()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	var status exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(os.Stderr, "nodeagent: %v\n", err)
	if command.Name() == "check" {
		return exitUndecided
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nodeagent",
		Short: "Can this node run VMs, and how are its VMs doing?",
		Long: `nodeagent looks after a Linux host that runs virtual machines with QEMU/KVM,
alone or as a KubeVirt node.

  nodeagent check       is this host ready to run VMs; if not, why, and what to do
  nodeagent run         serve Prometheus metrics of the VMs and the readiness report
  nodeagent top         show how the VMs do right now
  nodeagent plan        what would be changed in the host's network; apply does it, restore undoes it
  nodeagent net         the host's links, virtual functions and their users
  nodeagent labels      what run tells a cluster of this node
  nodeagent capture     record what check reads, to look at it elsewhere

It needs no configuration. To see every check, run it as root.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newCheck(), newRun(), newTop(), newCapture(), newPlan(), newApply(), newRestore(), newNet(), newRender(), newLabels(), newUninstall(), newConfig(), newVersion())
	return root
}
