package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// assets is what a control plane is started from.
type assets struct {
	version string // of Kubernetes
	plane   batch
	tether  batch
}

// findAssets reads what is to be built and says where it belongs. It makes
// nothing but the top of the cache.
func findAssets() (assets, error) {
	cache, err := hosttest.Cache("cluster")
	if err != nil {
		return assets{}, err
	}
	here := filepath.Join(hosttest.Root(), "test", "cluster")
	var texts []string
	for _, name := range []string{"tools/go.mod", "tools/go.sum", "tether/main.go"} {
		text, err := os.ReadFile(filepath.Join(here, name))
		if err != nil {
			return assets{}, fmt.Errorf("read what to build: %w", err)
		}
		texts = append(texts, string(text))
	}
	gomod, gosum, tether := texts[0], texts[1], texts[2]
	version, err := kubernetesVersion(gomod)
	if err != nil {
		return assets{}, err
	}
	flags := linkFlags(version)
	// The go command is the one that compiled this program: go test and
	// go run see to that.
	target := runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	return assets{
		version: version,
		plane: batch{
			dir:        filepath.Join(cache, key(gomod, gosum, target, flags)),
			module:     filepath.Join(here, "tools"),
			flags:      flags,
			components: componentsOf(tierAPI),
		},
		// The tether has a key of its own: a change to it must not cost
		// the ten minutes of the others.
		tether: batch{
			dir:        filepath.Join(cache, "tether-"+key(tether, target)),
			module:     hosttest.Root(),
			components: []component{{name: "tether", pkg: "./test/cluster/tether", tier: tierAPI}},
		},
	}, nil
}

// Version returns the Kubernetes version of the API server, such as v1.36.3.
func Version() (string, error) {
	a, err := findAssets()
	return a.version, err
}

// Missing returns nil when a control plane can be started, and says how to
// prepare it otherwise.
func Missing() error {
	a, err := findAssets()
	if err != nil {
		return err
	}
	var names []string
	for _, c := range append(a.plane.missing(), a.tether.missing()...) {
		names = append(names, c.name)
	}
	if len(names) > 0 {
		return fmt.Errorf("%s not built; run: go run ./test/bed cluster prepare", strings.Join(names, ", "))
	}
	return nil
}
