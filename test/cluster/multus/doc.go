// Package multus pins the CNI plugin that gives pods of a test cluster their
// second interface. It is a module of its own: its Kubernetes clients are
// older than the rest.
package multus
