// Package tools pins what the cluster tier builds: its go.mod names
// kube-apiserver and etcd as tools. It is a module of its own because
// k8s.io/kubernetes needs every staging module replaced by hand, and because
// none of its dependencies may reach the agent's go.mod.
package tools
