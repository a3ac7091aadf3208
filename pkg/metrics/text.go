package metrics

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// The buckets of a histogram that have a series: every second power of two,
// from 4 µs to 4 s. Quantiles are good to a factor of four; all powers would
// cost a machine twice the series. Protobuf has them all.
const (
	firstLe = -18
	lastLe  = 2
	leStep  = 2

	// histogramSeries is how many series one histogram is: the buckets, the
	// one for all, sum and count.
	histogramSeries = (lastLe-firstLe)/leStep + 1 + 3
)

// textHeader appends the comments of a family.
func (w *writer) textHeader() {
	w.buf = append(w.buf, "# HELP "...)
	w.buf = append(w.buf, w.name...)
	w.buf = append(w.buf, ' ')
	w.buf = append(w.buf, w.help...)
	w.buf = append(w.buf, "\n# TYPE "...)
	w.buf = append(w.buf, w.name...)
	w.buf = append(w.buf, ' ')
	w.buf = append(w.buf, w.kind...)
	w.buf = append(w.buf, '\n')
}

// textSample appends one line.
func (w *writer) textSample(suffix string, v uint64, pairs []string) {
	w.textName(suffix, pairs)
	switch w.unit {
	case nanoseconds:
		w.buf = appendDecimal(w.buf, v, 9)
	default:
		w.buf = strconv.AppendUint(w.buf, v, 10)
	}
	w.buf = append(w.buf, '\n')
}

// textName appends a line up to its number.
func (w *writer) textName(suffix string, pairs []string) {
	w.buf = append(w.buf, w.name...)
	w.buf = append(w.buf, suffix...)
	if len(w.base) > 0 || len(pairs) > 0 {
		w.buf = append(w.buf, '{')
		w.buf = append(w.buf, w.base...)
		for i := 0; i+1 < len(pairs); i += 2 {
			if i > 0 || len(w.base) > 0 {
				w.buf = append(w.buf, ',')
			}
			w.buf = appendLabel(w.buf, pairs[i], pairs[i+1])
		}
		w.buf = append(w.buf, '}')
	}
	w.buf = append(w.buf, ' ')
}

// textHistogram appends the buckets, sum and count of a histogram.
func (w *writer) textHistogram(h *qemu.Histogram, pairs []string) {
	unit := w.unit
	w.unit = plain
	count := eachLe(h, func(le float64, below uint64) { w.textBucket(le, below, pairs) })
	w.textBucket(math.Inf(1), count, pairs)
	w.textSample("_count", count, pairs)
	w.unit = nanoseconds
	w.textSample("_sum", h.Sum, pairs)
	w.unit = unit
}

// textBucket appends the line of one bucket.
func (w *writer) textBucket(le float64, below uint64, pairs []string) {
	w.textName("_bucket", pairs)
	w.buf = w.buf[:len(w.buf)-1]
	if w.buf[len(w.buf)-1] == '}' {
		w.buf[len(w.buf)-1] = ','
	} else {
		w.buf = append(w.buf, '{')
	}
	w.buf = append(w.buf, `le="`...)
	w.buf = strconv.AppendFloat(w.buf, le, 'g', -1, 64)
	w.buf = append(w.buf, `"} `...)
	w.buf = strconv.AppendUint(w.buf, below, 10)
	w.buf = append(w.buf, '\n')
}

// eachLe tells the buckets that have a series, cumulative, and returns the
// count of all.
func eachLe(h *qemu.Histogram, tell func(le float64, below uint64)) uint64 {
	var count uint64
	for i, n := range h.Buckets {
		count += n
		if k := qemu.FirstBucket + i; k >= firstLe && k <= lastLe && (k-firstLe)%leStep == 0 {
			tell(math.Ldexp(1, k), count)
		}
	}
	return count
}

// appendDecimal appends v divided by ten to the power of places, exactly and
// without trailing zeros.
func appendDecimal(buf []byte, v uint64, places int) []byte {
	var digits [20]byte
	scale := uint64(1)
	for range places {
		scale *= 10
	}
	buf = strconv.AppendUint(buf, v/scale, 10)
	rest := v % scale
	if rest == 0 {
		return buf
	}
	for i := places - 1; i >= 0; i-- {
		digits[i] = byte('0' + rest%10)
		rest /= 10
	}
	for places > 0 && digits[places-1] == '0' {
		places--
	}
	buf = append(buf, '.')
	return append(buf, digits[:places]...)
}

// appendLabel appends name="value" with the value escaped.
func appendLabel(buf []byte, name, value string) []byte {
	buf = append(buf, name...)
	buf = append(buf, '=', '"')
	buf = appendEscaped(buf, value)
	return append(buf, '"')
}

// appendEscaped appends a label value: backslash, quote and line feed are
// escaped, and what is not UTF-8 becomes U+FFFD, byte by byte.
func appendEscaped(buf []byte, value string) []byte {
	done := 0
	for i := 0; i < len(value); {
		c := value[i]
		if c != '\\' && c != '"' && c != '\n' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(value[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		buf = append(buf, value[done:i]...)
		switch c {
		case '\n':
			buf = append(buf, '\\', 'n')
		case '\\', '"':
			buf = append(buf, '\\', c)
		default:
			buf = utf8.AppendRune(buf, utf8.RuneError)
		}
		i += size
		done = i
	}
	return append(buf, value[done:]...)
}
