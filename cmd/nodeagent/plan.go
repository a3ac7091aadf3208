package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/reconcile"
)

// exitPending is the status of plan when there is something to change.
const exitPending = 2

func newPlan() *cobra.Command {
	var flags networkFlags
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Say what apply would change in this host's network, and change nothing",
		Long: `plan looks at the host's links and virtual functions and prints, a line each, the
steps that bring them to what the HostNetwork policies in FILE want, with the
disruption of each and the pods and VMs that it would hit. What a guard forbids is
refused, with the evidence. The last line names the plan, for apply --plan.

Exit status: 0 the host is as the policies want it, 2 there is something to change,
1 it is refused or failed.`,
		Example: `  nodeagent plan -f storage.yaml
  nodeagent plan -f storage.yaml -o json | jq '.steps[].text'`,
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
				return writePlan(cmd, flags.output, view.Plan)
			})
		},
	}
	flags.add(cmd, true)
	flags.addFormat(cmd)
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag was added before
	}
	return cmd
}

// namedPlan is a plan with its name.
type namedPlan struct {
	Hash string `json:"plan"`
	reconcile.Plan
}

// writePlan prints a plan, and returns its exit status.
func writePlan(cmd *cobra.Command, output string, plan reconcile.Plan) error {
	out := cmd.OutOrStdout()
	var err error
	if output == "json" {
		err = writeData(out, output, namedPlan{Hash: plan.Hash(), Plan: plan})
	} else {
		err = plan.Write(out)
	}
	switch {
	case err != nil:
		return err
	case len(plan.Refusals) > 0:
		return exitError(exitFailed)
	case len(plan.Steps) > 0:
		return exitError(exitPending)
	}
	return nil
}
