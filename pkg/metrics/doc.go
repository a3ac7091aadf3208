// Package metrics serves what the agent knows over HTTP: the numbers of the
// host's virtual machines and the agent's own for Prometheus, and pages for
// probes and people.
//
// Every family named virtnode_ is one row of a flat table (families.go), from
// which both the exposition and the reference in docs/metrics.md are made.
// The exposition is written family by family straight into one buffer;
// client_golang contributes the go_ families.
package metrics
