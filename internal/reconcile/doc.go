// Package reconcile brings a host from what it is to what it shall be, one
// step at a time, so that it ends in one of the two and never between.
//
// A [Step] moves one property of one target from a value that it has to a value
// that is wanted. Both are in the step, so a step can be undone, printed,
// hashed, and written down before anything happens. A flow plans its steps
// purely; a [Writer] guards and makes them. A [Loop] drives both:
//
//	Recover   what a run before left unfinished is undone, or kept if it was kept
//	Apply     journal all steps ─▶ for each: guard, write, journal ─▶ verify ─▶ confirm ─▶ commit
//	          on any failure: undo in reverse, to the values that were there before
//
// The journal is the truth about what is under way, the originals about what
// was there before the first change: from them a planner knows what to bring
// back when nobody wants it otherwise any more.
package reconcile
