package cluster

import "slices"

// A tier groups the components that one kind of test bed needs, so that the
// API server's tests never wait for the rest of a cluster to compile.
type tier string

const (
	// tierAPI is a bare API server and its store.
	tierAPI tier = "api"
	// tierPackaging renders and installs manifests.
	tierPackaging tier = "packaging"
	// tierNodes makes pods run: the rest of the control plane, the kubelet,
	// and the plugin for second interfaces.
	tierNodes tier = "nodes"
)

// A component is one binary of a test cluster.
type component struct {
	name   string // of the binary
	module string // the folder whose go.mod names the package as a tool
	pkg    string // its main package
	tier   tier
}

// components is all that can be built, in the order of building.
func components() []component {
	const kubernetes = "k8s.io/kubernetes/cmd/"
	return []component{
		{"etcd", "tools", "go.etcd.io/etcd/server/v3", tierAPI},
		{"kube-apiserver", "tools", kubernetes + "kube-apiserver", tierAPI},
		{"kustomize", "packaging", "sigs.k8s.io/kustomize/kustomize/v5", tierPackaging},
		{"helm", "packaging", "helm.sh/helm/v3/cmd/helm", tierPackaging},
		{"kube-controller-manager", "tools", kubernetes + "kube-controller-manager", tierNodes},
		{"kube-scheduler", "tools", kubernetes + "kube-scheduler", tierNodes},
		{"kubelet", "tools", kubernetes + "kubelet", tierNodes},
		{"multus", "multus", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus", tierNodes},
	}
}

// componentsOf returns the components of the tier that a module builds.
func componentsOf(t tier, module string) []component {
	return slices.DeleteFunc(components(), func(c component) bool { return c.tier != t || c.module != module })
}
