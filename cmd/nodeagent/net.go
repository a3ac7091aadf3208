package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// inventory is what net prints.
type inventory struct {
	Links  []hostnet.Link      `json:"links"`
	Routes []hostnet.Route     `json:"routes"`
	Uplink []string            `json:"uplink"`
	PFs    []sriov.PFState     `json:"pfs"`
	Pools  []network.PoolState `json:"pools"`
	Ours   []reconcile.Step    `json:"ours"`
	Drift  *reconcile.Plan     `json:"drift,omitempty"`
}

func newNet() *cobra.Command {
	var flags networkFlags
	cmd := &cobra.Command{
		Use:   "net",
		Short: "Show this host's links, virtual functions, uplink and their users",
		Long: `net shows the links and the virtual functions of this host, who uses and who manages
them, which of them the node is reached through, and what of them is the agent's.
With -f, it also shows what has drifted from the policies.`,
		Example: `  nodeagent net
  nodeagent net -f storage.yaml -o json | jq .drift`,
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
				all := inventory{
					Links: view.Links.Links, Routes: view.Links.Routes, Uplink: view.Uplink(), PFs: view.VFs.PFs, Pools: view.Pools(), Ours: view.Ours,
				}
				if len(policies) > 0 {
					all.Drift = &view.Plan
				}
				if flags.output == "json" {
					return writeData(cmd.OutOrStdout(), flags.output, all)
				}
				return all.write(cmd.OutOrStdout())
			})
		},
	}
	flags.add(cmd, true)
	flags.addFormat(cmd)
	return cmd
}

func (i inventory) write(w io.Writer) error {
	var out strings.Builder
	rows := []string{"LINK\tKIND\tSTATE\tMTU\tON\tALTNAMES\tPCI\tADDRESSES\tMANAGED BY\n"}
	for _, l := range i.Links {
		on, pci := l.Master, ""
		if on == "" {
			on = l.Parent
		}
		if l.PCI != nil {
			pci = l.PCI.Address
		}
		var managers []string
		for _, m := range l.Managers {
			managers = append(managers, m.Name)
		}
		cells := []string{
			l.Name, l.Kind, l.State, strconv.Itoa(l.MTU), on, strings.Join(l.Altnames, ","), pci,
			strings.Join(l.Addresses, ","), strings.Join(managers, ","),
		}
		for c := range cells {
			if cells[c] == "" {
				cells[c] = "-"
			}
		}
		rows = append(rows, strings.Join(cells, "\t")+"\n")
	}
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	_, err := io.WriteString(table, strings.Join(rows, ""))
	if err = errors.Join(err, table.Flush()); err != nil {
		return err
	}
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&out, "\n%s\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	section("UPLINK, never touched", i.Uplink)
	for _, pf := range i.PFs {
		var lines []string
		for _, vf := range pf.VFs {
			line := fmt.Sprintf("%d %s %s %s", vf.Index, vf.Address, orDash(vf.Driver), vf.Attributes)
			parts := []string{line}
			for _, user := range vf.Users {
				parts = append(parts, "used: "+user.String())
			}
			lines = append(lines, strings.Join(parts, ", "))
		}
		section(fmt.Sprintf("VFS OF %s, %d of %d", pf.Name(), pf.NumVFs, pf.TotalVFs), append(lines, ""))
	}
	var ours []string
	for _, o := range i.Ours {
		ours = append(ours, fmt.Sprintf("%s: was %s", o.Key(), o.Was))
	}
	section("THE AGENT'S", ours)
	if i.Drift != nil {
		out.WriteString("\nDRIFT\n")
		if err := i.Drift.Write(&out); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, out.String())
	return err
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
