// Package multus renders policies into the objects that others read:
// NetworkAttachmentDefinitions for Multus, and the configurations of the
// SR-IOV and macvtap device plugins. It is pure, and knows no cluster.
//
// A definition names what it lies on by the interface's name in the policy.
// That is an alternative name of the link, the same on every node, so that one
// definition fits them all.
package multus
