package metrics

// Limits bounds how many series virtual machines may have; zero is no limit.
type Limits struct {
	PerVM int
	All   int
}

// budget is what is left of the limits while a page is written. Families are
// cut whole: one that does not fit a machine's limit any more and all that come
// after it on the page are left out for that machine, one that does not fit
// the page's limit and all after it for everybody. What is on a page thus
// depends on nothing but the samples. Without limits it allows everything.
type budget struct {
	limits  Limits
	used    []int // by machine; at the limit when it is full
	all     int
	full    bool
	cutVM   uint64 // series that a machine's limit cost
	cutPage uint64
}

// reset begins a page about so many machines.
func (b *budget) reset(limits Limits, machines int) {
	used := b.used[:0]
	for range machines {
		used = append(used, 0)
	}
	*b = budget{limits: limits, used: used}
}

// allows reports whether machine i may have n more series, and counts them.
func (b *budget) allows(i, n int) bool {
	if b.limits.PerVM == 0 || n == 0 {
		return true
	}
	if b.used[i] += n; b.used[i] <= b.limits.PerVM {
		return true
	}
	b.used[i] = b.limits.PerVM // full: nothing fits any more
	b.cutVM += uint64(n)
	return false
}

// allowsFamily reports whether the page may have a family of n series, and
// counts them.
func (b *budget) allowsFamily(n int) bool {
	if b.limits.All == 0 || n == 0 {
		return true
	}
	if b.full = b.full || b.all+n > b.limits.All; b.full {
		b.cutPage += uint64(n)
		return false
	}
	b.all += n
	return true
}
