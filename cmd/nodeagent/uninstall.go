package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/node"
)

// uninstallOptions are the flags of uninstall.
type uninstallOptions struct {
	kubeconfig string
	node       string // the only one
	host       bool   // this one alone, and not the cluster
	root       string
	features   string // NFD's folder
}

func newUninstall() *cobra.Command {
	var options uninstallOptions
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

Of the host it runs on, and of no other, it removes the file for Node Feature Discovery,
if the agent wrote it; with --host only that, without a cluster. Where agents still run,
kubernetes.nfd.write: false in their configuration does it on every node.

It can be repeated. The network of the hosts stays as it is: nodeagent restore, on a host,
brings back what was there before.`,
		Example: `  kubectl -n virtnode-system delete daemonset nodeagent && nodeagent uninstall --kubeconfig ~/.kube/config
  nodeagent uninstall --node worker-7
  nodeagent uninstall --host`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var failed error
			err := options.run(cmd.Context(), func(line string) {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
					failed = err
				}
			})
			return errors.Join(err, failed)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.kubeconfig, "kubeconfig", "", "file with the cluster's address and credentials (default: the service account of the pod)")
	flags.StringVar(&options.node, "node", "", "name of the only node to clean, in the cluster alone")
	flags.BoolVar(&options.host, "host", false, "clean this host alone, and not the cluster")
	flags.StringVar(&options.root, "root", "/", "root of the host")
	flags.StringVar(&options.features, "nfd-directory", config.Default().Kubernetes.NFD.Directory, "the host's directory that NFD's worker reads")
	cmd.MarkFlagsMutuallyExclusive("node", "host")
	return cmd
}

// run cleans the cluster, this host, or both.
func (o *uninstallOptions) run(ctx context.Context, tell func(line string)) error {
	var errs []error
	if !o.host {
		way, err := node.Config(o.kubeconfig)
		if err != nil {
			return err
		}
		errs = append(errs, node.Uninstall(ctx, way, o.node, tell))
	}
	if o.node == "" {
		errs = append(errs, o.cleanHost(tell))
	}
	return errors.Join(errs...)
}

// cleanHost removes what the agent keeps for NFD.
func (o *uninstallOptions) cleanHost(tell func(line string)) error {
	root, err := hostfs.Open(o.root)
	if err != nil {
		return err
	}
	removed, err := node.RemoveFeatures(func() (*os.Root, error) {
		dir, err := root.Resolve(o.features)
		if err != nil {
			return nil, err
		}
		return os.OpenRoot(dir)
	})
	if removed {
		tell("this host: " + path.Join(o.features, node.FeatureFileName))
	}
	return errors.Join(err, root.Close())
}
