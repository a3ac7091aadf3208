package cluster_test

import (
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
)

// crds installs our kinds in the shared control plane, once.
var crds sync.Once

// withKinds returns the connection of an administrator to a cluster that knows
// our kinds.
func withKinds(t *testing.T) *rest.Config {
	t.Helper()
	config := plane.Config(t)
	crds.Do(func() { installCRDs(t, config, filepath.Join("..", "..", "deploy", "daemonset", "base", "crds")) })
	return config
}

func installCRDs(t *testing.T, config *rest.Config, paths ...string) {
	t.Helper()
	if _, err := envtest.InstallCRDs(config, envtest.CRDInstallOptions{Paths: paths, ErrorIfPathMissing: true}); err != nil {
		t.Fatal(err)
	}
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return scheme
}

// newObjects returns a client for objects of every kind.
func newObjects(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	objects, err := client.New(config, client.Options{Scheme: newScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}
