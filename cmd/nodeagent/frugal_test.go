package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestFrugalLeavesTheEnvironmentItsSay(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	t.Setenv("GOGC", "")
	cpus, percent := runtime.GOMAXPROCS(0), percentNow()
	now := func(what string, wantCPUs, wantPercent int) {
		t.Helper()
		if cpus, percent := runtime.GOMAXPROCS(0), percentNow(); cpus != wantCPUs || percent != wantPercent {
			t.Errorf("%s: %d CPUs and %d %%, want %d and %d", what, cpus, percent, wantCPUs, wantPercent)
		}
	}
	undo := frugal()
	now("without settings", oneCPU, garbage)
	undo()
	now("undone", cpus, percent)
	t.Setenv("GOMAXPROCS", "3")
	t.Setenv("GOGC", "200")
	undo = frugal()
	now("with settings", cpus, percent) // which Go itself has read at the start
	undo()
	now("undone again", cpus, percent)
}

func percentNow() int {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return percent
}
