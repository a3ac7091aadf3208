package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// plainWidth is the width of a table that does not go to a terminal.
const plainWidth = 120

func newCheck() *cobra.Command {
	var root, output string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this host can run VMs, and if not, why",
		Long: `check looks at CPU virtualization, KVM, device nodes, huge pages, IOMMU, VFIO,
SR-IOV and cgroups, and runs a guest of a few instructions on /dev/kvm. On a
node of a cluster it also looks at the kubelet, the container runtime, CNI,
storage and the clock.

Every line is ready, NOT READY (VMs cannot run without it), warning (VMs run,
but not as they should), off (some VMs want it) or unknown (it could not be
read). What is not ready says why, and what to do.

Exit status: 0 the host is ready, 1 it is not, 2 nobody can tell or check failed.`,
		Example: `  nodeagent check
  nodeagent check -o json | jq .findings
  nodeagent check --root /host              the host's / mounted in a container
  nodeagent check --root node7.tar.gz       a host recorded by nodeagent capture`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := check(cmd.Context(), root)
			if err != nil {
				return err
			}
			if err := writeReport(cmd.OutOrStdout(), output, report); err != nil {
				return err
			}
			switch report.Verdict {
			case kvmcheck.Ready:
				return nil
			case kvmcheck.NotReady:
				return exitError(exitNotReady)
			default:
				return exitError(exitUndecided)
			}
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "root of the host to look at: a directory, or a recording")
	addOutputFlag(cmd, &output)
	return cmd
}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "how to print: table, json or yaml")
	complete := cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc("output", complete); err != nil {
		panic(err) // the flag was added above
	}
}

// check collects and judges the host at a root.
func check(ctx context.Context, name string) (report nodestack.Report, err error) {
	root, err := hostfs.Open(name)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	probe, err := newProbe(root)
	if err != nil {
		return report, err
	}
	return probe(ctx), nil
}

// newProbe returns what collects and judges the host at a root that is open.
func newProbe(root *hostfs.Root) (func(context.Context) nodestack.Report, error) {
	host, err := kvmcheck.Open(root)
	if err != nil {
		return nil, err
	}
	around, err := nodestack.Open(root)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) nodestack.Report {
		facts := kvmcheck.Collect(ctx, host)
		stack := nodestack.Collect(ctx, around, facts.Host.Kernel)
		return nodestack.NewReport(facts, stack, kvmcheck.Profile{}, version(), time.Now().UTC())
	}, nil
}

func writeReport(w io.Writer, output string, report nodestack.Report) error {
	switch output {
	case "table":
		return tableFor(w).Write(w, report.Report)
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(report)
	case "yaml":
		text, err := yaml.Marshal(report)
		if err != nil {
			return fmt.Errorf("print report: %w", err)
		}
		_, err = w.Write(text)
		return err
	default:
		return fmt.Errorf("--output %q: want table, json or yaml", output)
	}
}

// tableFor fits the table to where it goes: colour on a terminal only, and
// not when NO_COLOR is set (no-color.org).
func tableFor(w io.Writer) kvmcheck.Table {
	file, isFile := w.(*os.File)
	if !isFile {
		return kvmcheck.Table{Width: plainWidth}
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return kvmcheck.Table{Width: plainWidth}
	}
	width := int(size.Col)
	if width == 0 {
		width = plainWidth
	}
	return kvmcheck.Table{Width: width, Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}
