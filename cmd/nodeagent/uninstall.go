package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/node"
)

func newUninstall() *cobra.Command {
	var kubeconfig, only string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove all that agents have written to a cluster",
		Long: `uninstall removes, from all nodes of a cluster, the labels and conditions that
agents have written, and their NodeVirtualizations: also those of nodes whose
agent is gone. What others own stays. It prints what it removes, a line each.

HostNetworks stay, but lose the finalizer virtnode.io/restore, which nobody is
left to take off: with it neither they nor their CRD could be deleted.

Remove agents and controller first: those that still run write everything again.
With --node it lets one node go whose agent will not come back: a HostNetwork
that was deleted does not wait for it any more.

It can be repeated. The network of the hosts stays as it is: nodeagent restore, on a host,
brings back what was there before.`,
		Example: `  kubectl -n virtnode-system delete daemonset nodeagent && nodeagent uninstall --kubeconfig ~/.kube/config
  nodeagent uninstall --node worker-7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			way, err := node.Config(kubeconfig)
			if err != nil {
				return err
			}
			var failed error
			err = node.Uninstall(cmd.Context(), way, only, func(line string) {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
					failed = err
				}
			})
			if err != nil {
				return err
			}
			return failed
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file with the cluster's address and credentials (default: the service account of the pod)")
	cmd.Flags().StringVar(&only, "node", "", "name of the only node to clean")
	return cmd
}
