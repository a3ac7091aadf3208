// Package cluster is the test tier with a real Kubernetes API server. The
// binaries are compiled from the modules that tools/go.mod pins, never
// downloaded, and kept in the cache; envtest starts and stops them. Beside
// them are kustomize and Helm (packaging/go.mod), and what makes pods run:
// the kubelet and what it needs, and Multus (multus/go.mod).
//
// The files follow the binaries: components (which ones), key (where in the
// cache), prepare, lock and compile (how they get there), assets (are they
// there), start (a control plane for a person), shared (one for tests).
//
// A control plane never outlives the process that started it, not even one
// that was killed: each of its programs runs below a tether, see the command
// tether.
package cluster
