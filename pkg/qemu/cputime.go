package qemu

import "math/bits"

// times is CPU time in nanoseconds. /proc tells it in ticks of 10 ms.
type times struct{ user, system uint64 }

// advance takes over what was read anew: the sum may only grow, and so may both
// parts, though the kernel splits the sum anew each time.
func (t *times) advance(now times) {
	sum := max(t.user+t.system, now.user+now.system)
	t.system = min(max(now.system, t.system), sum-t.user)
	t.user = sum - t.system
}

// cpu returns the sum, and the part of it in the kernel.
func (t *times) cpu() (sum, system Num) { return Some(t.user + t.system), Some(t.system) }

// times splits the time on a CPU as the kernel does for /proc: by what ticks
// found, and so that no part is less than it was told to be before
// (cputime_adjust in kernel/sched/cputime.c).
func (a *Account) times() times {
	told := times{user: a.ToldUser, system: a.ToldSystem}
	if told.user+told.system >= a.Runtime {
		return told
	}
	now := times{user: a.Runtime}
	switch {
	case a.System == 0: // no tick found it in the kernel
	case a.User == 0:
		now = times{system: a.Runtime}
	default:
		high, low := bits.Mul64(a.System, a.Runtime)
		ticks := a.User + a.System
		if high >= ticks {
			break // more than there can be
		}
		now.system, _ = bits.Div64(high, low, ticks)
		now.system = min(now.system, a.Runtime)
		now.user = a.Runtime - now.system
	}
	told.advance(now)
	return told
}
