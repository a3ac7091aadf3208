package node

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// pace says when what was seen is believed.
type pace int

const (
	// keep: nobody can tell, and what was said before stays.
	keep pace = iota
	// slow: after three observations in a row over at least a minute, as with
	// durable verdicts. So is everything that takes something away.
	slow
	// early: at once where nothing was said before, or a smaller number; else slow.
	early
	// doubt: like early, for what says that nobody can tell. It does not count
	// towards a no, and a no does not count towards it.
	doubt
	// now: at once.
	now
)

// proposal is what one look at the host says of a key.
type proposal[T any] struct {
	key   string
	value string // what is compared; empty: the key is to go
	pace  pace
	of    T // what is said with the value, from the look that brought it
}

// held is what has been said of some keys, and holds until there is reason to
// say otherwise. The zero value has said nothing.
type held[T any] map[string]said[T]

type said[T any] struct {
	value string
	of    T
	// against are the looks in a row that did not agree, for a doubt or for a no.
	against  kvmcheck.Negatives
	doubting bool
}

// observe returns what is said after a look. A key that is not proposed any
// more goes slowly.
func (h held[T]) observe(at time.Time, proposals []proposal[T]) held[T] {
	next := make(held[T], len(proposals))
	left := maps.Clone(h)
	for _, p := range proposals {
		entry := h[p.key]
		delete(left, p.key)
		if entry.observe(at, p); entry.value != "" || entry.against != (kvmcheck.Negatives{}) {
			next[p.key] = entry
		}
	}
	for key, entry := range left {
		if entry.observe(at, proposal[T]{key: key, pace: slow}); entry.value != "" {
			next[key] = entry
		}
	}
	return next
}

func (s *said[T]) observe(at time.Time, p proposal[T]) {
	if doubting := p.pace == doubt; doubting != s.doubting {
		s.against, s.doubting = kvmcheck.Negatives{}, doubting
	}
	atOnce := p.pace == now || ((p.pace == early || p.pace == doubt) && improves(s.value, p.value))
	switch {
	case p.pace == keep || p.value == s.value:
		s.against = kvmcheck.Negatives{}
	case atOnce, s.against.Add(at):
		*s = said[T]{value: p.value, of: p.of}
	}
}

// improves reports whether nothing was said before, or a smaller number.
func improves(before, after string) bool {
	was, wasErr := strconv.ParseUint(before, 10, 64)
	is, isErr := strconv.ParseUint(after, 10, 64)
	return before == "" || (wasErr == nil && isErr == nil && is > was)
}

// keys lists what something is said of, sorted.
func (h held[T]) keys() []string {
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(h)) {
		if h[key].value != "" {
			keys = append(keys, key)
		}
	}
	return keys
}
