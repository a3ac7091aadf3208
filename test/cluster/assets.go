package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// assets is what a control plane, and nodes, are started from.
type assets struct {
	version   string // of Kubernetes
	plane     batch
	tether    batch
	packaging batch
	nodes     batch // the rest of Kubernetes, in the folder of plane
	multus    batch
}

// findAssets reads what is to be built and says where it belongs. It makes
// nothing but the top of the cache.
func findAssets() (assets, error) {
	cache, err := hosttest.Cache("cluster")
	if err != nil {
		return assets{}, err
	}
	here := filepath.Join(hosttest.Root(), "test", "cluster")
	tether, err := os.ReadFile(filepath.Join(here, "tether", "main.go"))
	if err != nil {
		return assets{}, fmt.Errorf("read what to build: %w", err)
	}
	gomod, err := os.ReadFile(filepath.Join(here, "tools", "go.mod"))
	if err != nil {
		return assets{}, fmt.Errorf("read what to build: %w", err)
	}
	version, err := kubernetesVersion(string(gomod))
	if err != nil {
		return assets{}, err
	}
	a := assets{
		version: version,
		// The tether has a key of its own: a change to it must not cost
		// the ten minutes of the others.
		tether: batch{
			dir:        filepath.Join(cache, "tether-"+key(string(tether), target())),
			module:     hosttest.Root(),
			components: []component{{name: "tether", pkg: "./test/cluster/tether", tier: tierAPI}},
		},
	}
	for _, b := range []struct {
		batch  *batch
		module string
		prefix string
		flags  string
		tier   tier
	}{
		{&a.plane, "tools", "", linkFlags(version), tierAPI},
		{&a.nodes, "tools", "", linkFlags(version), tierNodes},
		{&a.packaging, "packaging", "packaging-", "-s -w", tierPackaging},
		{&a.multus, "multus", "multus-", "-s -w", tierNodes},
	} {
		if *b.batch, err = moduleBatch(filepath.Join(here, b.module), b.flags); err != nil {
			return assets{}, err
		}
		b.batch.dir = filepath.Join(cache, b.prefix+b.batch.dir)
		b.batch.components = componentsOf(b.tier, b.module)
	}
	return a, nil
}

// target is what is compiled for, and with: the go command is the one that
// compiled this program; go test and go run see to that.
func target() string {
	return runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// moduleBatch is a batch of a module, in a folder that is named by its key.
func moduleBatch(module, flags string) (batch, error) {
	var texts []string
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return batch{}, fmt.Errorf("read what to build: %w", err)
		}
		texts = append(texts, string(text))
	}
	return batch{dir: key(texts[0], texts[1], target(), flags), module: module, flags: flags}, nil
}

// Version returns the Kubernetes version of the API server, such as v1.36.3.
func Version() (string, error) {
	a, err := findAssets()
	return a.version, err
}

// Missing returns nil when a control plane can be started, and says how to
// prepare it otherwise.
func Missing() error {
	return missing("prepare", func(a assets) []batch { return []batch{a.plane, a.tether} })
}

// MissingPackaging is Missing for kustomize and Helm.
func MissingPackaging() error {
	return missing("prepare", func(a assets) []batch { return []batch{a.packaging} })
}

// MissingNodes is Missing for a whole cluster.
func MissingNodes() error {
	return missing("prepare --nodes", func(a assets) []batch { return []batch{a.plane, a.tether, a.packaging, a.nodes, a.multus} })
}

func missing(prepare string, needed func(assets) []batch) error {
	a, err := findAssets()
	if err != nil {
		return err
	}
	var names []string
	for _, b := range needed(a) {
		for _, c := range b.missing() {
			names = append(names, c.name)
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%s not built; run: go run ./test/bed cluster %s", strings.Join(names, ", "), prepare)
	}
	return nil
}

// Binary returns the path of a component, which may not be built yet.
func Binary(name string) (string, error) {
	a, err := findAssets()
	if err != nil {
		return "", err
	}
	for _, b := range []batch{a.plane, a.tether, a.packaging, a.nodes, a.multus} {
		for _, c := range b.components {
			if c.name == name {
				return filepath.Join(b.dir, name), nil
			}
		}
	}
	return "", fmt.Errorf("%s: no such component of a cluster", name)
}
