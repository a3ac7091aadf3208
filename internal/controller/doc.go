// Package controller sees all nodes at once, which no agent does. It gives
// nodes their turns to be disrupted, sums up what became of each HostNetwork,
// keeps a deleted one until its nodes are restored, renders attachments for
// Multus, and removes what vanished nodes have left.
//
// What it decides is pure: a fleet in, turns and counts out.
package controller
