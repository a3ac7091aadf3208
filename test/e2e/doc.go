// Package e2e is the test tier with a whole Kubernetes cluster: a control
// plane, and nodes with a kubelet, containerd and Multus, all on this machine,
// with the agent's image running as a DaemonSet.
//
// Everything lives in namespaces of its own. The test binary starts itself
// anew as process 1 of a PID namespace (enter), builds the cluster there
// (control, node), and the kernel ends all of it with that process, however it
// ends. Each node has its own mounts, network, processes and control groups,
// an uplink eth0 and a second NIC ens1f0 that policies may use.
package e2e
