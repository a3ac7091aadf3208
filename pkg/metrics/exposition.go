package metrics

import (
	"strconv"
	"unicode/utf8"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// kind is the type of a family, as Prometheus names it.
type kind string

const (
	counter kind = "counter"
	gauge   kind = "gauge"
)

// unit says how an integer is printed. Base units are seconds and bytes.
type unit uint8

const (
	plain       unit = iota
	nanoseconds      // as seconds
	ticks            // of 10 ms, as seconds
)

// family is one metric family over things of type T.
type family[T any] struct {
	name   string
	kind   kind
	unit   unit
	labels string // besides those that every series of T has, apart by blanks
	class  string // where it comes from, for the reference
	help   string
	emit   func(*writer, *T)
}

// writer appends the text exposition format, version 0.0.4
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
type writer struct {
	buf    []byte
	series int

	name, help string // of the current family
	kind       kind
	unit       unit
	begun      bool   // its header is written
	base       []byte // labels of the current thing, `a="b",c="d"`

	bases []byte // of all things
	ends  []int  // where each one's ends in bases
}

// reset empties the page and keeps its memory.
func (w *writer) reset() { *w = writer{buf: w.buf[:0], bases: w.bases[:0], ends: w.ends[:0]} }

// write appends families over things, family by family. A family without a
// sample leaves no trace. label appends a thing's own labels to its argument.
func write[T any](w *writer, families []family[T], things []T, label func([]byte, *T) []byte) {
	labelAll(w, things, label)
	writeLabelled(w, families, things)
}

// labelAll sets the labels that things have on each of their series.
func labelAll[T any](w *writer, things []T, label func([]byte, *T) []byte) {
	w.bases, w.ends = w.bases[:0], w.ends[:0]
	for i := range things {
		w.bases = label(w.bases, &things[i])
		w.ends = append(w.ends, len(w.bases))
	}
}

// writeLabelled appends families over things that labelAll was called with.
func writeLabelled[T any](w *writer, families []family[T], things []T) {
	for i := range families {
		f := &families[i]
		w.name, w.help, w.kind, w.unit, w.begun = f.name, f.help, f.kind, f.unit, false
		start := 0
		for j := range things {
			w.base = w.bases[start:w.ends[j]]
			start = w.ends[j]
			f.emit(w, &things[j])
		}
	}
}

// appendHeader appends what comes before a family's first sample.
func (w *writer) appendHeader() {
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

// put appends a sample without labels of its own, if the number is known.
func (w *writer) put(n qemu.Num) {
	if !n.Set {
		return
	}
	w.start()
	if len(w.base) > 0 {
		w.buf = append(w.buf, '{')
		w.buf = append(w.buf, w.base...)
		w.buf = append(w.buf, '}')
	}
	w.finish(n.V)
}

// putLabel appends a sample with one more label, if the number is known.
func (w *writer) putLabel(name, value string, n qemu.Num) {
	if !n.Set {
		return
	}
	w.start()
	w.openLabels()
	w.buf = appendLabel(w.buf, name, value)
	w.buf = append(w.buf, '}')
	w.finish(n.V)
}

// putIndex appends a sample with one more label that is a number.
func (w *writer) putIndex(name string, index uint32, n qemu.Num) {
	var digits [10]byte
	w.putLabel(name, string(strconv.AppendUint(digits[:0], uint64(index), 10)), n)
}

// putIndexState appends a sample of one for the state of a numbered part.
func (w *writer) putIndexState(name string, index uint32, stateName, state string) {
	if state == "" {
		return
	}
	var digits [10]byte
	w.start()
	w.openLabels()
	w.buf = appendLabel(w.buf, name, string(strconv.AppendUint(digits[:0], uint64(index), 10)))
	w.buf = append(w.buf, ',')
	w.buf = appendLabel(w.buf, stateName, state)
	w.buf = append(w.buf, '}')
	w.finish(1)
}

// putState appends a sample of one for a state, if it is known.
func (w *writer) putState(name, state string) {
	w.putLabel(name, state, qemu.Num{V: 1, Set: state != ""})
}

func (w *writer) start() {
	if !w.begun {
		w.appendHeader()
		w.begun = true
	}
	w.series++
	w.buf = append(w.buf, w.name...)
}

func (w *writer) openLabels() {
	w.buf = append(w.buf, '{')
	if len(w.base) > 0 {
		w.buf = append(w.buf, w.base...)
		w.buf = append(w.buf, ',')
	}
}

func (w *writer) finish(v uint64) {
	w.buf = append(w.buf, ' ')
	switch w.unit {
	case nanoseconds:
		w.buf = appendDecimal(w.buf, v, 9)
	case ticks:
		w.buf = appendDecimal(w.buf, v, 2)
	default:
		w.buf = strconv.AppendUint(w.buf, v, 10)
	}
	w.buf = append(w.buf, '\n')
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
