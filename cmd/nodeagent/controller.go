package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/controller"
	"github.com/virtnode/nodeagent/internal/node"
)

func newController() *cobra.Command {
	var kubeconfig, namespace, health, level, format string
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Do for a cluster's HostNetworks what no single node can",
		Long: `controller runs beside the agents, once in a cluster. It gives the nodes their
turns to be disrupted, as many at the same time as a HostNetwork's maxUnavailable,
and stops where a change was undone; sums up in each HostNetwork's status what the
nodes report; keeps a deleted HostNetwork until its nodes are as they were before;
renders attachments as NetworkAttachmentDefinitions for Multus; and removes the
NodeVirtualizations of vanished nodes.

Of several, one leads: the others wait for its lease. Without it the agents go on,
change what disturbs nobody, and wait with the rest.`,
		Example: `  nodeagent controller --kubeconfig ~/.kube/config --namespace nodeagent`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			threshold := new(slog.LevelVar)
			if err := threshold.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log.level %q: want debug, info, warn or error", level)
			}
			way, err := node.Config(kubeconfig)
			if err != nil {
				return err
			}
			return controller.Run(cmd.Context(), controller.Options{
				Config: way, Namespace: namespace, Health: health, Log: newLogger(cmd.ErrOrStderr(), format, threshold),
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "file with the cluster's address and credentials (default: the pod's service account)")
	flags.StringVar(&namespace, "namespace", cmp.Or(os.Getenv("POD_NAMESPACE"), "nodeagent"), "namespace of the lease")
	flags.StringVar(&health, "health.listen-address", ":9478", "address of /healthz and /readyz; empty: none")
	flags.StringVar(&level, "log.level", "info", "debug, info, warn or error")
	flags.StringVar(&format, "log.format", "auto", "text, json, or auto: text on a terminal, JSON elsewhere")
	return cmd
}
