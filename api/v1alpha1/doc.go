// Package v1alpha1 holds the API types: HostNetwork, what the network of a
// node shall be for its VMs.
//
// The same document serves as a file on a host without Kubernetes and as an
// object of a cluster. The doc tag of each field is its reference. Defaults are
// filled in by [HostNetwork.Default], and [HostNetwork.Validate] judges what no
// other field, and no host, has to be looked at for.
package v1alpha1
