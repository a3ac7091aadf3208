//go:build !amd64 && !arm64

package kvmcheck

import "os"

// platformGuest has no code for this architecture, so the proof stays open
// and the verdict Unknown.
func platformGuest() (program guest, written bool) { return guest{}, false }

func vmType(*os.File) uintptr { return 0 }

func prepareVM(*os.File) (call string, err error) { return "", nil }

func prepareVCPU(_, _ *os.File, _ uint64) (call string, err error) { return "", nil }
