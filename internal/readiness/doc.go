// Package readiness keeps the check of a running host up to date: on a jittered
// interval, and at once when the kernel announces that a module or device came
// or went, or when the huge pages changed.
//
// What a check finds is the current state; [kvmcheck.Steady] makes of it the
// durable one.
package readiness
