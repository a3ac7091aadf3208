// Package nfd pins the worker and the master of Node Feature Discovery, which
// make labels of what the agent writes for them: its go.mod names them as tools.
// It is a module of its own so that its libraries do not reach the agent's go.mod.
package nfd
