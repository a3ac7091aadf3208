package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

// minInterval keeps --watch from asking a host for nothing else.
const minInterval = 100 * time.Millisecond

// checkOptions are the flags of check.
type checkOptions struct {
	from     *settings
	root     string
	output   string
	profile  string
	explain  string
	compare  string
	watch    bool
	interval time.Duration
}

func newCheck() *cobra.Command {
	var options checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this host can run VMs, and if not, why",
		Long: `check looks at CPU virtualization, KVM, device nodes, huge pages, IOMMU, VFIO,
SR-IOV and cgroups, and runs a guest of a few instructions on /dev/kvm. On a
node of a cluster it also looks at the kubelet, the container runtime, CNI,
storage and the clock.

Every line is ready, NOT READY (VMs cannot run without it), warning (VMs run,
but not as they should), off (some VMs want it) or unknown (it could not be
read). What is not ready says why, and what to do; --explain says more of a
reason. What a node needs depends on its --profile: kubevirt, libvirt, sriov,
confidential, or one of the configuration file, which can also add checks.

--compare says instead how this host and another differ in what VMs can see of
their CPUs, and in which direction live migration is safe: from A to B when
everything that a guest of A may have seen exists on B. The other host is a
report made there by check -o json, or a recording made by capture.

Exit status: 0 the host is ready, 1 it is not, 2 nobody can tell or check failed;
with --compare: 0 safe both ways, 1 unsafe at least one way, 2 nobody can tell.`,
		Example: `  nodeagent check
  nodeagent check --profile sriov
  nodeagent check --explain NestedNotExposed
  nodeagent check --watch                   until Ctrl-C
  nodeagent check -o json | jq .findings
  nodeagent check --root /host              the host's / mounted in a container
  nodeagent check --root node7.tar.gz       a host recorded by nodeagent capture
  nodeagent check --compare node8.json      can VMs migrate between here and node8`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return options.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	options.from = &settings{flags: cmd.Flags()}
	options.from.addFile()
	flags := cmd.Flags()
	flags.StringVar(&options.root, "root", "/", "root of the host to look at: a directory, or a recording")
	flags.StringVar(&options.profile, "profile", "", "kind of node to judge for (default: the configuration's, "+kvmcheck.DefaultProfile+")")
	flags.StringVar(&options.explain, "explain", "", "say what a reason means and what to do, and check nothing")
	flags.StringVar(&options.compare, "compare", "", "report or recording of another host to compare with, for live migration")
	flags.BoolVar(&options.watch, "watch", false, "check again and again: redraw on a terminal, print changes elsewhere")
	flags.DurationVar(&options.interval, "interval", 5*time.Second, "time between two checks of --watch")
	addOutputFlag(cmd, &options.output)
	cmd.MarkFlagsMutuallyExclusive("explain", "watch", "compare")
	complete(cmd, "explain", completeReasons())
	complete(cmd, "profile", profileNames(nil))
	return cmd
}

func (o *checkOptions) run(ctx context.Context, out io.Writer) error {
	if !slices.Contains(outputs(), o.output) {
		return fmt.Errorf("--output %q: want table, json or yaml", o.output)
	}
	if o.interval < minInterval {
		return fmt.Errorf("--interval %v: want at least %v", o.interval, minInterval)
	}
	effective, err := o.from.load()
	if err != nil {
		return err
	}
	if o.explain != "" {
		return explain(out, o.output, o.explain, effective.Readiness.Rules)
	}
	if o.compare != "" {
		return runCompare(ctx, out, o.root, o.compare, o.output)
	}
	if o.profile != "" {
		effective.Readiness.Profile = o.profile
	}
	profile, err := profileOf(effective.Readiness)
	if err != nil {
		return err
	}
	report, err := o.report(ctx, out, profile)
	if err != nil {
		return err
	}
	return exitFor(report.Verdict)
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

// report checks once, or until ctx ends, and prints.
func (o *checkOptions) report(ctx context.Context, out io.Writer, profile kvmcheck.Profile) (report nodestack.Report, err error) {
	root, err := hostfs.Open(o.root)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	probe, err := newProbe(root, func() kvmcheck.Profile { return profile })
	if err != nil {
		return report, err
	}
	if o.watch {
		w := &watcher{out: out, output: o.output, terminal: isTerminal(out) && o.output == "table", interval: o.interval}
		return w.watch(ctx, probe)
	}
	report = probe(ctx)
	return report, writeReport(out, o.output, report)
}

// newProbe returns what collects and judges the host at a root that is open.
func newProbe(root *hostfs.Root, profile func() kvmcheck.Profile) (func(context.Context) nodestack.Report, error) {
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
		return nodestack.NewReport(facts, stack, profile(), version(), time.Now().UTC())
	}, nil
}

// outputs lists the values of --output, the default first.
func outputs() []string { return []string{"table", "json", "yaml"} }

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", outputs()[0], "how to print: table, json or yaml")
	complete(cmd, "output", outputs())
}

func complete(cmd *cobra.Command, flag string, values []cobra.Completion) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was added before
	}
}

func writeReport(w io.Writer, output string, report nodestack.Report) error {
	if output == "table" {
		return tableFor(w).Write(w, report.Report)
	}
	return writeData(w, output, report)
}

// writeData prints a value as JSON or YAML.
func writeData(w io.Writer, output string, value any) error {
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	}
	text, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("print as YAML: %w", err)
	}
	_, err = w.Write(text)
	return err
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
