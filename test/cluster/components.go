package cluster

import "slices"

// A tier groups the components that one kind of test bed needs, so that the
// API server's tests never wait for the rest of a cluster to compile.
type tier string

// tierAPI is a bare API server and its store.
const tierAPI tier = "api"

// A component is one binary of a test cluster.
type component struct {
	name string // of the binary
	pkg  string // its main package, a tool of tools/go.mod
	tier tier
}

// components is all that can be built, in the order of building.
func components() []component {
	return []component{
		{"etcd", "go.etcd.io/etcd/server/v3", tierAPI},
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", tierAPI},
	}
}

// componentsOf returns the components of the tier.
func componentsOf(t tier) []component {
	return slices.DeleteFunc(components(), func(c component) bool { return c.tier != t })
}
