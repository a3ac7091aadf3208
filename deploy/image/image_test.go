package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// buildAgent builds the agent, as a release does, from the tree at dir.
func buildAgent(t *testing.T, dir, arch string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "nodeagent")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", binary, "./cmd/nodeagent")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// copyTree copies what the agent is built from to another place.
func copyTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"api", "cmd", "internal", "pkg"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(hosttest.Root(), name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(hosttest.Root(), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestTwoBuildsMakeOneImage builds the agent at two places, and packs it twice.
func TestTwoBuildsMakeOneImage(t *testing.T) {
	t.Parallel()
	var digests []string
	var archives [][]byte
	var binary string
	for _, tree := range []string{hosttest.Root(), copyTree(t)} {
		out := t.TempDir()
		binary = buildAgent(t, tree, runtime.GOARCH)
		digest, err := pack("localhost/nodeagent:test", out, []string{binary})
		if err != nil {
			t.Fatal(err)
		}
		archive, err := os.ReadFile(filepath.Join(out, archiveName("nodeagent")))
		if err != nil {
			t.Fatal(err)
		}
		digests, archives = append(digests, digest), append(archives, archive)
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds have the digests %v", digests)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the archives of one image differ")
	}
	checkArchive(t, archives[0], digests[0])
	checkBill(t, binary)
}

// checkArchive unpacks an archive and looks at the image as a registry would.
func checkArchive(t *testing.T, archive []byte, digest string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(unpack(t, bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	top, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 || top.Manifests[0].Digest.String() != digest {
		t.Fatalf("the archive holds %+v, want %s", top.Manifests, digest)
	}
	platforms, err := index.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(platforms); err != nil {
		t.Error(err)
	}
	manifest, err := platforms.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := platforms.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, image)
}

func checkImage(t *testing.T, image v1.Image) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != runtime.GOARCH || config.Config.Labels["org.opencontainers.image.version"] != "devel" {
		t.Errorf("the configuration is %+v", config)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v; want one", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	dir := unpack(t, content)
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, config.Config.Entrypoint[0]), "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "nodeagent devel") {
		t.Errorf("the program in the image says %q, %v", out, err)
	}
}

// unpack writes an archive of files and folders to a temporary folder.
func unpack(t *testing.T, from io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	archive := tar.NewReader(from)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(header.Name))
		if header.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(name, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, header.FileInfo().Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// checkBill compares the bill with what the go command says of the source.
func checkBill(t *testing.T, binary string) {
	t.Helper()
	p, err := readProgram(binary)
	if err != nil {
		t.Fatal(err)
	}
	data, err := billOf(p)
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"stdlib": runtime.Version(), "github.com/virtnode/nodeagent": "devel"}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/nodeagent")
	cmd.Dir = hosttest.Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if path, version, found := strings.Cut(strings.TrimSpace(line), " "); found {
			want[path] = version
		}
	}
	got := make(map[string]string)
	ids := make(map[string]bool)
	for _, m := range b.Packages {
		got[m.Name] = m.Version
		if ids[m.ID] {
			t.Errorf("two materials are called %s", m.ID)
		}
		ids[m.ID] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
	for _, r := range b.Relationships {
		if !ids[r.Related] {
			t.Errorf("a relationship leads to %s, which is not in the bill", r.Related)
		}
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ file, why string }{
		"a script":            {filepath.Join(hosttest.Root(), "test/install.sh"), "not a Linux program"},
		"a dynamic program":   {"/bin/sh", "CGO_ENABLED=0"},
		"what does not exist": {filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := pack("x", t.TempDir(), []string{test.file}); err == nil || !strings.Contains(err.Error(), test.why) {
				t.Errorf("the error is %v, want one about %q", err, test.why)
			}
		})
	}
	if _, err := pack("x", t.TempDir(), nil); err == nil {
		t.Error("an image of nothing is made")
	}
}
