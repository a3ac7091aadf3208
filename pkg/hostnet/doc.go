// Package hostnet knows the links of a host (network cards, bonds, bridges,
// VLANs, macvlan) and brings them to what policies want.
//
//	policies ─Resolve─▶ Spec ┐
//	kernel   ─Observe─▶ State┴─Plan─▶ []reconcile.Step ─▶ Writer (guard, apply, undo)
//
// Resolve and Plan are pure. What a node is reached through, its uplink, is
// never changed: a guard says so when a plan is made, and again, on fresh
// evidence, immediately before each write.
package hostnet
