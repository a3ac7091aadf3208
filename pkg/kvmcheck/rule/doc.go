// Package rule lets a user ask own questions of a host: expressions in CEL, the
// Common Expression Language (cel.dev), over the facts that check collects.
//
//	Compile(source) -> Rule -> Judge(facts) -> Finding
//
// An expression sees `facts` as `nodeagent check -o json` prints them, and
// every name in it is checked when it is compiled. What is not known makes the
// finding Unknown, with the cause, unless the expression does not depend on it.
package rule
