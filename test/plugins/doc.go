// Package plugins pins what is rendered for: its go.mod names the SR-IOV CNI
// plugin and the SR-IOV device plugin as tools, which the tests of package vm
// run on a card. It is a module of its own because both are of the years of
// their libraries, and because none of these may reach the agent's go.mod.
//
// Of the CNI plugin the module proxies know one version only, under the name
// that its sources import.
package plugins
