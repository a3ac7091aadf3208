// Package agent supervises the agent's tasks: it starts them, knows which are
// ready, restarts those that fail, and drains them in reverse order. One
// failing task neither stops nor hides the others.
package agent
