package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/network"
)

func newApply() *cobra.Command {
	var flags networkFlags
	var hash string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Bring this host's network to what policies want, as a whole or not at all",
		Long: `apply carries out what plan shows. Everything is journalled first; each write is
guarded on what the host is at that moment; and when a step fails, or the node
cannot be reached afterwards, all is undone, to what was there before. If the
agent is killed or the machine loses power in the middle, the next start does that.

Exit status: 0 the host is as the policies want it, 1 it is as it was before.`,
		Example: `  nodeagent apply -f storage.yaml
  nodeagent apply -f storage.yaml --plan 4be7a91c02de     exactly the plan that was looked at
  nodeagent apply -f storage.yaml --dry-run               the same as plan`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.checkFormat(); err != nil {
				return err
			}
			policies, err := flags.policies(cmd.InOrStdin())
			if err != nil {
				return err
			}
			return flags.withNetwork(cmd, func(ctx context.Context, n *network.Network) error {
				view, err := n.Plan(ctx, policies)
				if err != nil {
					return needsRoot(err)
				}
				if dryRun {
					return writePlan(cmd, flags.output, view.Plan)
				}
				if flags.output == "text" {
					if err := view.Plan.Write(cmd.OutOrStdout()); err != nil {
						return err
					}
				}
				outcome, err := n.Apply(ctx, network.Ask{Who: operator("apply"), Plan: hash, Again: hash != ""}, policies)
				if err != nil {
					return needsRoot(err)
				}
				return writeOutcome(cmd.OutOrStdout(), flags.output, outcome)
			})
		},
	}
	flags.add(cmd, true)
	flags.addFormat(cmd)
	cmd.Flags().StringVar(&hash, "plan", "", "carry out exactly this plan, also if it cut the node off before, or nothing")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, and do nothing")
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag was added before
	}
	return cmd
}
