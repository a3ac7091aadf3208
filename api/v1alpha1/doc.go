// Package v1alpha1 holds the API types: HostNetwork, what the network of a
// node shall be for its VMs, and NodeVirtualization, what the agent found on a
// node.
//
// A HostNetwork serves as a file on a host without Kubernetes and as an object
// of a cluster alike. The comment of each field is its reference, which kubectl
// explain shows. Defaults are filled in by [HostNetwork.Default], and
// [HostNetwork.Validate] judges what no other field, and no host, has to be
// looked at for.
//
// +kubebuilder:object:generate=true
// +groupName=virtnode.io
package v1alpha1
