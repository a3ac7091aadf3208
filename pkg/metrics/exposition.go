package metrics

import (
	"strconv"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// kind is the type of a family, as Prometheus names it.
type kind string

const (
	counter   kind = "counter"
	gauge     kind = "gauge"
	histogram kind = "histogram"
)

// unit says how an integer is printed. Base units are seconds and bytes.
type unit uint8

const (
	plain       unit = iota
	nanoseconds      // as seconds
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

// writer appends families in one of the two formats that Prometheus asks for
// (https://prometheus.io/docs/instrumenting/exposition_formats/): text,
// version 0.0.4, or delimited protobuf. How a sample looks is in text.go and
// protobuf.go; rows of families know put and its kin only.
type writer struct {
	buf      []byte
	series   int
	protobuf bool

	name, help string // of the current family
	kind       kind
	unit       unit
	begun      bool   // its header is written
	header     int    // where it begins in buf
	base       []byte // labels of the current thing, as text.go or protobuf.go writes them

	bases  []byte // of all things
	ends   []int  // where each one's ends in bases
	skip   []bool // things that are left out; empty: none
	budget budget
	text   []byte // of one thing's labels, on their way to protobuf
}

// reset empties the page and keeps its memory.
func (w *writer) reset(protobuf bool) {
	w.budget.reset(Limits{}, 0)
	*w = writer{
		buf: w.buf[:0], bases: w.bases[:0], ends: w.ends[:0], skip: w.skip[:0], text: w.text[:0],
		budget: w.budget, protobuf: protobuf,
	}
}

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
		if w.protobuf {
			w.text = label(w.text[:0], &things[i])
			w.bases = appendPairs(w.bases, w.text)
		} else {
			w.bases = label(w.bases, &things[i])
		}
		w.ends = append(w.ends, len(w.bases))
	}
}

// writeLabelled appends families over things that labelAll was called with.
func writeLabelled[T any](w *writer, families []family[T], things []T) {
	for i := range families {
		f := &families[i]
		w.name, w.help, w.kind, w.unit, w.begun = f.name, f.help, f.kind, f.unit, false
		first, start := w.mark(), 0
		for j := range things {
			w.base = w.bases[start:w.ends[j]]
			start = w.ends[j]
			if len(w.skip) > 0 && w.skip[j] {
				continue
			}
			before := w.mark()
			f.emit(w, &things[j])
			if !w.budget.allows(j, w.series-before.series) {
				w.back(before)
			}
		}
		if !w.budget.allowsFamily(w.series - first.series) {
			w.back(first)
		}
		w.end()
	}
}

// mark is a place in a page to which the writer can go back.
type mark struct {
	length, series int
	begun          bool
}

func (w *writer) mark() mark { return mark{len(w.buf), w.series, w.begun} }

func (w *writer) back(to mark) { w.buf, w.series, w.begun = w.buf[:to.length], to.series, to.begun }

// put appends a sample without labels of its own, if the number is known.
func (w *writer) put(n qemu.Num) {
	if n.Set {
		w.sample(n.V)
	}
}

// putLabel appends a sample with one more label, if the number is known.
func (w *writer) putLabel(name, value string, n qemu.Num) {
	if n.Set {
		w.sample(n.V, name, value)
	}
}

// putLabels appends a sample with more labels, names and values by turns, if
// the number is known.
func (w *writer) putLabels(n qemu.Num, pairs ...string) {
	if n.Set {
		w.sample(n.V, pairs...)
	}
}

// putIndex appends a sample with one more label that is a number.
func (w *writer) putIndex(name string, index uint32, n qemu.Num) {
	if n.Set {
		var digits [10]byte
		w.sample(n.V, name, string(strconv.AppendUint(digits[:0], uint64(index), 10)))
	}
}

// putIndexState appends a sample of one for the state of a numbered part.
func (w *writer) putIndexState(name string, index uint32, stateName, state string) {
	if state != "" {
		var digits [10]byte
		w.sample(1, name, string(strconv.AppendUint(digits[:0], uint64(index), 10)), stateName, state)
	}
}

// putState appends a sample of one for a state, if it is known.
func (w *writer) putState(name, state string) {
	if state != "" {
		w.sample(1, name, state)
	}
}

// putHistogram appends a histogram of durations, if it is known, with more
// labels as in putLabels.
func (w *writer) putHistogram(h *qemu.Histogram, pairs ...string) {
	if h == nil || !h.Set {
		return
	}
	w.begin()
	w.series += histogramSeries
	if w.protobuf {
		w.protobufHistogram(h, pairs)
	} else {
		w.textHistogram(h, pairs)
	}
}

// sample appends one number of a counter or gauge.
func (w *writer) sample(v uint64, pairs ...string) {
	w.begin()
	w.series++
	if w.protobuf {
		w.protobufSample(v, pairs)
	} else {
		w.textSample("", v, pairs)
	}
}

// begin appends what comes before a family's first sample.
func (w *writer) begin() {
	if w.begun {
		return
	}
	w.begun, w.header = true, len(w.buf)
	if w.protobuf {
		w.protobufHeader()
	} else {
		w.textHeader()
	}
}

// end appends what comes after a family's last sample.
func (w *writer) end() {
	if w.begun && w.protobuf {
		w.buf = patchLength(w.buf, w.header, familyLength)
	}
}
