// Package nfd pins the worker of Node Feature Discovery, which reads what the
// agent writes for it: its go.mod names it as a tool. It is a module of its own
// so that its libraries do not reach the agent's go.mod.
package nfd
