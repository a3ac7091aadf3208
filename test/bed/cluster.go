package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/test/cluster"
)

func clusterCommand() *cobra.Command {
	top := &cobra.Command{
		Use:   "cluster",
		Short: "A Kubernetes API server and etcd, compiled from their modules",
	}
	var nodes bool
	prepare := &cobra.Command{
		Use:   "prepare",
		Short: "Compile what the cluster tier needs into the cache (ten minutes on a cold machine)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			return cluster.Prepare(cmd.Context(), nodes, func(line string) {
				// Progress that cannot be printed is no reason to stop.
				_, _ = fmt.Fprintln(out, line)
			})
		},
	}
	prepare.Flags().BoolVar(&nodes, "nodes", false, "also what a cluster with nodes needs (a few minutes more)")
	top.AddCommand(
		prepare,
		&cobra.Command{
			Use:   "run [-- command...]",
			Short: "Run an API server until Ctrl-C, or as long as the command runs",
			RunE: func(cmd *cobra.Command, args []string) error {
				return runCluster(cmd.Context(), cmd.OutOrStdout(), args)
			},
		},
	)
	return top
}

// runCluster runs a control plane for a person, or for the command in args.
func runCluster(ctx context.Context, out io.Writer, args []string) (err error) {
	plane, err := cluster.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	if len(args) > 0 {
		return runWithKubeconfig(ctx, plane.Kubeconfig(), args)
	}
	version, err := cluster.Version()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, `Kubernetes %s serves at %s
It has no controllers, no scheduler and no nodes. In another shell, as administrator:

  export KUBECONFIG=%s
  kubectl get namespaces

Ctrl-C stops it and removes the file.
`, version, plane.Config().Host, plane.Kubeconfig())
	if err != nil {
		return fmt.Errorf("print how to use the cluster: %w", err)
	}
	<-ctx.Done()
	return nil
}

// runWithKubeconfig runs the command on the control plane.
func runWithKubeconfig(ctx context.Context, kubeconfig string, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	// The control plane stays up until the command has ended.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	return nil
}
