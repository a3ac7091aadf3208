// Package sriov knows physical functions (PFs) and their virtual functions
// (VFs) through sysfs: what a PF can have, what it has, and who drives it.
package sriov
