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
)

// plainWidth is the width of a table that does not go to a terminal.
const plainWidth = 120

func newCheck() *cobra.Command {
	var root, output, other string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this host can run VMs, and if not, why",
		Long: `check looks at CPU virtualization, KVM, device nodes, huge pages, IOMMU, VFIO,
SR-IOV and cgroups, and runs a guest of a few instructions on /dev/kvm.

Every line is ready, NOT READY (VMs cannot run without it), warning (VMs run,
but not as they should), off (some VMs want it) or unknown (it could not be
read). What is not ready says why, and what to do.

--compare says instead how this host and another differ in what VMs can see of
their CPUs, and in which direction live migration is safe: from A to B when
everything that a guest of A may have seen exists on B. The other host is a
report made there by check -o json, or a recording made by capture.

Exit status: 0 the host is ready, 1 it is not, 2 nobody can tell or check failed;
with --compare: 0 safe both ways, 1 unsafe at least one way, 2 nobody can tell.`,
		Example: `  nodeagent check
  nodeagent check -o json | jq .findings
  nodeagent check --root /host              the host's / mounted in a container
  nodeagent check --root node7.tar.gz       a host recorded by nodeagent capture
  nodeagent check --compare node8.json      can VMs migrate between here and node8`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if other != "" {
				return runCompare(cmd.Context(), cmd.OutOrStdout(), root, other, output)
			}
			report, err := check(cmd.Context(), root)
			if err != nil {
				return err
			}
			if err := writeReport(cmd.OutOrStdout(), output, report); err != nil {
				return err
			}
			return exitFor(report.Verdict)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/", "root of the host to look at: a directory, or a recording")
	cmd.Flags().StringVar(&other, "compare", "", "report or recording of another host to compare with, for live migration")
	addOutputFlag(cmd, &output)
	return cmd
}

// exitFor is the exit status of a verdict.
func exitFor(verdict kvmcheck.Status) error {
	switch verdict {
	case kvmcheck.Ready:
		return nil
	case kvmcheck.NotReady:
		return exitError(exitNotReady)
	default:
		return exitError(exitUndecided)
	}
}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "how to print: table, json or yaml")
	complete := cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc("output", complete); err != nil {
		panic(err) // the flag was added above
	}
}

// check collects and judges the host at a root.
func check(ctx context.Context, name string) (kvmcheck.Report, error) {
	facts, err := collect(ctx, name)
	if err != nil {
		return kvmcheck.Report{}, err
	}
	return kvmcheck.NewReport(facts, kvmcheck.Profile{}, version(), time.Now().UTC()), nil
}

func collect(ctx context.Context, name string) (facts kvmcheck.Facts, err error) {
	root, err := hostfs.Open(name)
	if err != nil {
		return facts, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	host, err := kvmcheck.Open(root)
	if err != nil {
		return facts, err
	}
	return kvmcheck.Collect(ctx, host), nil
}

func writeReport(w io.Writer, output string, report kvmcheck.Report) error {
	switch output {
	case "table":
		return tableFor(w).Write(w, report)
	case "json":
		return writeJSON(w, report)
	case "yaml":
		text, err := yaml.Marshal(report)
		if err != nil {
			return fmt.Errorf("print report: %w", err)
		}
		_, err = w.Write(text)
		return err
	default:
		return unknownOutput(output)
	}
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

func unknownOutput(output string) error {
	return fmt.Errorf("--output %q: want table, json or yaml", output)
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
