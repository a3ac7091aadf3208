// Package top shows how virtual machines do right now: two collections of the
// same samples that /metrics serves become rates, and rates become a table.
// Everything in it is pure; cmd/nodeagent collects, waits for keys and draws.
package top
