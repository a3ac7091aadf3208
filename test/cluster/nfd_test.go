package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestNFDsWorkerReadsTheFeatures gives the file to the real worker, in a root of
// its own, since it reads one path only.
func TestNFDsWorkerReadsTheFeatures(t *testing.T) {
	root := t.TempDir()
	missing := hosttest.BuildTools(root, "test/nfd")
	if os.Geteuid() != 0 {
		missing = errors.New("not root: the worker needs a root directory of its own")
	}
	hosttest.Need(t, hosttest.Cluster, missing)
	dir := filepath.Join(root, "etc", "kubernetes", "node-feature-discovery", "features.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const kubeconfig = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
  users: [{name: u, user: {token: t}}], clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]}`
	if err := os.WriteFile(filepath.Join(root, "kubeconfig"), []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	good, _ := machines(t)
	for use, labelled := range map[node.FeatureUse]bool{node.FeaturesAsLabels: true, node.FeaturesOnly: false} {
		keep(t, dir, use, node.Look{Report: good})
		worker := exec.Command("/nfd-worker", "-kubeconfig=/kubeconfig", "-oneshot", "-no-publish", "-port=0", "-feature-sources=local", "-label-sources=local", "-v=4")
		worker.Env = []string{"NODE_NAME=n", "KUBERNETES_NAMESPACE=default"}
		worker.Dir, worker.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
		out, err := worker.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		read, found, _ := strings.Cut(string(out), "discovered features")
		_, labels, published := strings.Cut(found, "\"feature discovery completed\" labels=")
		if !strings.Contains(found, `virtnode.io/kvm: "true"`) || !published || strings.Contains(labels, `virtnode.io/kvm: "true"`) != labelled {
			t.Errorf("labelled: %v, want %v:\n%s%s", !labelled, labelled, read, found)
		}
	}
}

// keep lets the agent write its file once, anew.
func keep(t *testing.T, dir string, use node.FeatureUse, look node.Look) {
	t.Helper()
	path := filepath.Join(dir, node.FeatureFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	file := node.NewFeatureFile(func() (*os.Root, error) { return os.OpenRoot(dir) }, use, hosttest.Time, slog.New(slog.DiscardHandler))
	file.Observe(look)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- file.Run(ctx, func() {}) }()
	within(t, "the file is there", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
