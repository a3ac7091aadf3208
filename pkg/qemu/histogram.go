package qemu

// The buckets of a [Histogram], as powers of two of a second: the first counts
// all up to 2^FirstBucket s (about a microsecond), the one after the last all
// that took longer than 2^LastBucket s.
const (
	FirstBucket = -20
	LastBucket  = 4
)

// Histogram counts durations in log2 buckets. The zero value is unknown.
type Histogram struct {
	Set     bool
	Buckets [LastBucket - FirstBucket + 2]uint64 // each for itself, not cumulative; the last one is +Inf
	Sum     uint64                               // nanoseconds
}
