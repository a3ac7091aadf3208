package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// indexOf makes the image of several architectures.
func indexOf(programs []program) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		image, err := imageOf(p)
		if err != nil {
			return nil, fmt.Errorf("make the image for %s: %w", p.arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.arch}},
		})
	}
	return index, nil
}

// imageOf makes an image of one layer, which holds the program alone.
func imageOf(p program) (v1.Image, error) {
	files, err := layerOf(p)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: p.created}, CreatedBy: p.name + " " + p.version},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", p.arch, v1.Time{Time: p.created}
	config.Config = v1.Config{
		Entrypoint: []string{"/" + p.name},
		WorkingDir: "/",
		Labels:     labelsOf(p),
	}
	return mutate.ConfigFile(image, config)
}

func labelsOf(p program) map[string]string {
	labels := map[string]string{
		"org.opencontainers.image.title":       p.name,
		"org.opencontainers.image.description": "Readiness, host network and telemetry of a KubeVirt node",
		"org.opencontainers.image.source":      "https://" + p.info.Main.Path,
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     p.version,
		"org.opencontainers.image.created":     p.created.UTC().Format(time.RFC3339),
	}
	if p.commit != "" {
		labels["org.opencontainers.image.revision"] = p.commit
	}
	return labels
}

// layerOf is the file system: the program, and a folder for temporary files.
func layerOf(p program) ([]byte, error) {
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	for _, header := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: p.name, Mode: 0o755, Size: int64(len(p.content))},
	} {
		header.ModTime, header.Format = p.created, tar.FormatPAX
		if err := archive.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write the layer: %w", err)
		}
	}
	if _, err := archive.Write(p.content); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	if err := archive.Close(); err != nil {
		return nil, fmt.Errorf("write the layer: %w", err)
	}
	return files.Bytes(), nil
}

// writeArchive writes the index as an OCI layout in a tar archive, which
// containerd, Podman, Skopeo and Docker import.
func writeArchive(file, name string, index v1.ImageIndex) (err error) {
	dir, err := os.MkdirTemp("", "nodeagent-image-")
	if err != nil {
		return fmt.Errorf("make a folder for the layout: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	top, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	err = top.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": name,
		"io.containerd.image.name":          name, // whose ctr takes a full name only from here
	}))
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return archiveOf(out, os.DirFS(dir))
}

// archiveOf writes all files in the order of their names, without what differs
// from one machine to the next.
func archiveOf(out io.Writer, from fs.FS) error {
	archive := tar.NewWriter(out)
	err := fs.WalkDir(from, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
		}
		content, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return archive.Close()
}
