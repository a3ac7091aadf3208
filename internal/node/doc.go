// Package node is where the agent meets its cluster. It is the only importer
// of Kubernetes clients: everything else works without one.
package node
