package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/network"
)

func newRestore() *cobra.Command {
	var flags networkFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Bring this host's network back to what it was before the agent changed it",
		Long: `restore undoes what the agent has ever changed in this host's network, and nothing
else: what it made goes, what it changed gets its first value back. What somebody
else has changed since is left alone. The guards of apply hold here too: a link or
virtual function that is in use stays.

If run goes on with policies in its configuration, it applies them again at its
next start: take them out first.`,
		Example: `  nodeagent restore --dry-run
  nodeagent restore`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.checkFormat(); err != nil {
				return err
			}
			return flags.withNetwork(cmd, func(ctx context.Context, n *network.Network) error {
				if dryRun {
					view, err := n.Plan(ctx, nil)
					if err != nil {
						return needsRoot(err)
					}
					return writePlan(cmd, flags.output, view.Plan)
				}
				outcome, err := n.Apply(ctx, network.Ask{Who: operator("restore")}, nil)
				if err != nil {
					return needsRoot(err)
				}
				return writeOutcome(cmd.OutOrStdout(), flags.output, outcome)
			})
		},
	}
	flags.add(cmd, false)
	flags.addFormat(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, and do nothing")
	return cmd
}
