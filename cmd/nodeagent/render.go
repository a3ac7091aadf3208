package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/multus"
)

func newRender() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print what others need to know of host network policies",
		Long: `render prints Kubernetes objects that are made of HostNetwork policies. It
touches neither this host nor a cluster.

  nodeagent render attachments     NetworkAttachmentDefinitions for Multus
  nodeagent render device-plugin   ConfigMaps of the SR-IOV and macvtap device plugins`,
	}
	cmd.AddCommand(
		newRenderer("attachments", "Print NetworkAttachmentDefinitions for Multus", multus.Attachments),
		newRenderer("device-plugin", "Print the configurations of the SR-IOV and macvtap device plugins", multus.DevicePlugins),
	)
	return cmd
}

func newRenderer(use, short string, render func([]v1alpha1.HostNetwork) ([]multus.Object, error)) *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  nodeagent render " + use + " -f storage.yaml | kubectl apply -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			policies, err := readPolicies(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			objects, err := render(policies)
			if err != nil {
				return err
			}
			return writeObjects(cmd.OutOrStdout(), output, objects)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "file of HostNetwork policies, repeatable; - is standard input")
	cmd.Flags().StringVarP(&output, "output", "o", "yaml", "how to print: yaml or json")
	complete(cmd, "output", []string{"yaml", "json"})
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

// writeObjects prints a document for each object, or one list.
func writeObjects(w io.Writer, output string, objects []multus.Object) error {
	switch output {
	case "json":
		return writeData(w, output, map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	case "yaml":
	default:
		return fmt.Errorf("-o %s: want yaml or json", output)
	}
	for i, object := range objects {
		if i > 0 {
			if _, err := io.WriteString(w, "---\n"); err != nil {
				return err
			}
		}
		if err := writeData(w, output, object); err != nil {
			return err
		}
	}
	return nil
}
