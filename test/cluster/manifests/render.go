// Package manifests renders what installs the agent, with kustomize and Helm
// themselves, for tests that hand it to an API server or a cluster.
package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// Namespace is where kustomize puts the agent.
const Namespace = "virtnode-system"

// Overlays are the folders that a cluster is installed from.
func Overlays() []string { return []string{"privileged", "telemetry-only", "openshift"} }

// OverlayDir is the folder of an overlay.
func OverlayDir(overlay string) string {
	return filepath.Join(hosttest.Root(), "deploy", "daemonset", "overlays", overlay)
}

// ChartDir is the folder of the chart.
func ChartDir() string { return filepath.Join(hosttest.Root(), "deploy", "helm", "nodeagent") }

// Kustomize renders the kustomization in a folder.
func Kustomize(ctx context.Context, dir string) ([]unstructured.Unstructured, error) {
	text, err := run(ctx, "kustomize", "build", dir)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// Chart renders the chart into a namespace, with settings such as
// image.tag=v1; tests and hooks among them.
func Chart(ctx context.Context, namespace string, settings ...string) ([]unstructured.Unstructured, error) {
	version, err := cluster.Version()
	if err != nil {
		return nil, err
	}
	// Without a cluster to ask, Helm takes another version for granted.
	args := []string{"template", "nodeagent", ChartDir(), "--namespace", namespace, "--kube-version", version}
	for _, setting := range settings {
		args = append(args, "--set", setting)
	}
	text, err := Helm(ctx, "", args...)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// Helm runs Helm on the cluster of a kubeconfig, or on none.
func Helm(ctx context.Context, kubeconfig string, args ...string) ([]byte, error) {
	return run(ctx, "helm", append(args, "--kubeconfig", kubeconfig)...)
}

// Hook reports whether Helm installs an object only for a moment.
func Hook(object unstructured.Unstructured) bool {
	_, hook := object.GetAnnotations()["helm.sh/hook"]
	return hook
}

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	program, err := cluster.Binary(name)
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "nodeagent-"+name+"-")
	if err != nil {
		return nil, fmt.Errorf("make a home for %s: %w", name, err)
	}
	defer func() { _ = os.RemoveAll(home) }()
	cmd := exec.CommandContext(ctx, program, args...)
	// Whoever runs the tests may have settings and repositories of their own.
	cmd.Env = append(os.Environ(), "HOME="+home, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, said.Bytes(), out)
	}
	return out, nil
}

// parse splits documents into objects.
func parse(text []byte) ([]unstructured.Unstructured, error) {
	var objects []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object unstructured.Unstructured
		switch err := decoder.Decode(&object.Object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("parse what was rendered: %w", err)
		case len(object.Object) > 0:
			objects = append(objects, object)
		}
	}
}
