package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/kvmcheck/rule"
)

// labelsOptions are the flags of labels.
type labelsOptions struct {
	from   *settings
	root   string
	output string
}

// labelsOutput is what labels prints as JSON.
type labelsOutput struct {
	Labels    []node.Label   `json:"labels"`
	Condition node.Condition `json:"condition"`
}

func newLabels() *cobra.Command {
	var options labelsOptions
	cmd := &cobra.Command{
		Use:   "labels",
		Short: "Print the labels that run gives the node in its cluster",
		Long: `labels checks the host once, as check does, and prints the labels and the
condition that run would write to the Node. It needs no cluster, and writes
nothing. Labels of networks come from run alone.

A - stands for a label that the node does not get; ? for one that nobody can
tell: on the Node it stays as it is. docs/labels.md explains them.`,
		Example: `  nodeagent labels
  nodeagent labels --root node7.tar.gz -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return options.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	options.from = &settings{flags: cmd.Flags()}
	options.from.addFile()
	cmd.Flags().StringVar(&options.root, "root", "/", "root of the host to look at: a directory, or a recording")
	cmd.Flags().StringVarP(&options.output, "output", "o", "text", "how to print: text or json")
	complete(cmd, "output", []string{"text", "json"})
	return cmd
}

func (o *labelsOptions) run(ctx context.Context, out io.Writer) (err error) {
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("--output %q: want text or json", o.output)
	}
	effective, err := o.from.load()
	if err != nil {
		return err
	}
	profile, err := profileOf(effective.Readiness)
	if err != nil {
		return err
	}
	custom, err := customLabels(effective.Kubernetes)
	if err != nil {
		return err
	}
	root, err := hostfs.Open(o.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	probe, err := newProbe(root, func() kvmcheck.Profile { return profile })
	if err != nil {
		return err
	}
	look := node.Look{Report: probe(ctx).Report, Custom: custom}
	told := labelsOutput{node.Labels(look), node.Ready(look)}
	if o.output == "json" {
		return writeData(out, o.output, told)
	}
	return told.write(out)
}

func (l labelsOutput) write(out io.Writer) error {
	var rows strings.Builder
	rows.WriteString("LABEL\tVALUE\n")
	for _, label := range l.Labels {
		value := cmp.Or(label.Value, "-")
		if !label.Known {
			value = "?"
		}
		fmt.Fprintf(&rows, "%s\t%s\n", label.Key, kvmcheck.Printable(value))
	}
	c := l.Condition
	fmt.Fprintf(&rows, "\ncondition %s: %s, %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(table, rows.String()); err != nil {
		return err
	}
	return table.Flush()
}

// customLabels compiles the labels of a valid configuration.
func customLabels(c config.Kubernetes) ([]node.Custom, error) {
	var all []node.Custom
	for _, label := range c.Labels {
		compiled, err := rule.CompileLabel(label.Name, label.Expression)
		if err != nil {
			return nil, fmt.Errorf("compile label %s: %w", label.Name, err)
		}
		all = append(all, compiled)
	}
	return all, nil
}
