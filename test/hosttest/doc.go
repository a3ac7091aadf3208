// Package hosttest is what the tests of every tier share: which tiers must
// run, where slow things are cached, and how the agent under test is built.
package hosttest
