// Command nodeagent-controller does for a cluster's HostNetworks what no single
// node can. It is a program of its own because what watches a whole cluster
// would add more than half to the memory of the agent on every node.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/controller"
	"github.com/virtnode/nodeagent/internal/node"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "nodeagent-controller: %v\n", err)
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	var kubeconfig, namespace, health, level string
	cmd := &cobra.Command{
		Use:   "nodeagent-controller",
		Short: "Do for a cluster's HostNetworks what no single node can",
		Long: `nodeagent-controller runs beside the agents, once in a cluster. It gives the nodes
their turns to be disrupted, as many at the same time as a HostNetwork's
maxUnavailable, and stops where a change was undone; sums up in each HostNetwork's
status what the nodes report; keeps a deleted HostNetwork until its nodes are as they
were before; renders attachments as NetworkAttachmentDefinitions for Multus; and
removes the NodeVirtualizations of vanished nodes.

Of several, one leads: the others wait for its lease. Without it the agents go on,
change what disturbs nobody, and wait with the rest.`,
		Example:       `  nodeagent-controller --kubeconfig ~/.kube/config --namespace virtnode-system`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var threshold slog.LevelVar
			if err := threshold.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log.level %q: want debug, info, warn or error", level)
			}
			way, err := node.Config(kubeconfig)
			if err != nil {
				return err
			}
			return controller.Run(cmd.Context(), controller.Options{
				Config: way, Namespace: namespace, Health: health,
				Log: slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &threshold})),
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "file with the cluster's address and credentials (default: the pod's service account)")
	flags.StringVar(&namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "virtnode-system"), "namespace of the lease")
	flags.StringVar(&health, "health.listen-address", ":9478", "address of /healthz and /readyz; empty: none")
	flags.StringVar(&level, "log.level", "info", "debug, info, warn or error")
	return cmd
}
