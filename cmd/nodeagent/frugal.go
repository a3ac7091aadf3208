package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// oneCPU is enough: with 200 VMs the agent uses one for some hundredths of a
	// second, and then waits for libvirt.
	oneCPU = 1
	// garbage is how much of it there may be before it is collected, in percent of
	// what is in use. It keeps the agent with 200 VMs below 40 MiB.
	garbage = 30
)

// frugal makes Go's runtime take less, unless the environment says what it
// shall take. It returns how to undo it.
func frugal() (undo func()) {
	var undone []func()
	if os.Getenv("GOMAXPROCS") == "" {
		before := runtime.GOMAXPROCS(oneCPU)
		undone = append(undone, func() { runtime.GOMAXPROCS(before) })
	}
	if os.Getenv("GOGC") == "" {
		before := debug.SetGCPercent(garbage)
		undone = append(undone, func() { debug.SetGCPercent(before) })
	}
	return func() {
		for _, undo := range undone {
			undo()
		}
	}
}
