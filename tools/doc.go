// Package tools pins the programs that check the source, in a module of its
// own so that the agent does not depend on theirs.
package tools
