package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

func newCapture() *cobra.Command {
	var name string
	var mask bool
	cmd := &cobra.Command{
		Use:   "capture FILE",
		Short: "Record what check reads on this host into one archive",
		Long: `capture runs the check and writes everything it read to FILE, a gzip-compressed
tar: files, symbolic links, what was missing, what could not be read, and what
the devices answered. Look at it anywhere with: nodeagent check --root FILE

--mask replaces serial numbers, UUIDs and MAC addresses. FILE "-" is standard output.`,
		Example: `  nodeagent capture node7.tar.gz
  nodeagent capture --mask - | ssh bastion 'cat > node7.tar.gz'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			root, err := hostfs.Open(name)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, root.Close()) }()
			host, err := kvmcheck.Open(root)
			if err != nil {
				return err
			}
			_, recorded, err := kvmcheck.Capture(cmd.Context(), host)
			if err != nil {
				return err
			}
			around, err := nodestack.Open(root)
			if err != nil {
				return err
			}
			if err := nodestack.Record(cmd.Context(), around, recorded); err != nil {
				return err
			}
			recorded.Manifest.Agent = version()
			recorded.Manifest.Time = time.Now().UTC()
			recorded.Manifest.Masked = mask
			if args[0] == "-" {
				return recorded.WriteArchive(cmd.OutOrStdout(), recorded.Manifest)
			}
			return writeWhole(args[0], recorded)
		},
	}
	cmd.Flags().StringVar(&name, "root", "/", "root of the host to record")
	cmd.Flags().BoolVar(&mask, "mask", false, "replace serial numbers, UUIDs and MAC addresses")
	return cmd
}

// writeWhole leaves either the whole archive at path or what was there before.
func writeWhole(path string, recorded *kvmcheck.Recorded) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".nodeagent-capture-*")
	if err != nil {
		if inner, ok := errors.AsType[*fs.PathError](err); ok {
			err = inner.Err // the temporary file's name tells nobody anything
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = recorded.WriteArchive(file, recorded.Manifest)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(file.Name()))
	}
	return nil
}
