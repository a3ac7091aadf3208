// Package kvmcheck answers whether a host can run virtual machines, and if
// not, why and what to do.
//
//	Collect(host) -> Facts -> Evaluate -> []Finding -> Report
//
// Collect reads /proc, /sys and a few device nodes and proves KVM by running a
// guest of a few instructions. Evaluate is pure. Every verdict has three values;
// what could not be read is Unknown, with the path and the cause.
package kvmcheck
