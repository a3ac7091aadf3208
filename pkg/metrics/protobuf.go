package metrics

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"unicode/utf8"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// Fields of io.prometheus.client's messages, each as number<<3 | wire type
// (https://protobuf.dev/programming-guides/encoding/). Optional fields are
// always written: the format has presence.
const (
	familyName, familyHelp, familyType, familyMetric = 1<<3 | 2, 2<<3 | 2, 3 << 3, 4<<3 | 2

	metricLabel, metricGauge, metricCounter, metricHistogram = 1<<3 | 2, 2<<3 | 2, 3<<3 | 2, 7<<3 | 2

	pairName, pairValue = 1<<3 | 2, 2<<3 | 2

	numberValue = 1<<3 | 1 // of a gauge or a counter

	histogramCount, histogramSum, histogramBucket = 1 << 3, 2<<3 | 1, 3<<3 | 2
	// Of native histograms; the bucket around zero has all that is shorter
	// than the threshold.
	histogramSchema, histogramZeroThreshold, histogramZeroCount = 5 << 3, 6<<3 | 1, 7 << 3
	histogramSpan, histogramDelta                               = 12<<3 | 2, 13 << 3

	bucketBelow, bucketLe  = 1 << 3, 2<<3 | 1
	spanOffset, spanLength = 1 << 3, 2 << 3
)

// How many bytes are left for the length of a message until it is known. Most
// fit; when one does not, patchLength moves the message.
const (
	familyLength = 3
	metricLength = 2
	shortLength  = 1
)

// protobufType is a kind's number in io.prometheus.client.MetricType.
func protobufType(k kind) byte {
	switch k {
	case counter:
		return 0
	case histogram:
		return 4
	default:
		return 1
	}
}

// patchLength writes the length of the message that begins after the reserved
// bytes at, and ends with buf.
func patchLength(buf []byte, at, reserved int) []byte {
	size := uint64(len(buf) - at - reserved)
	if need := varintSize(size); need != reserved {
		for range need - reserved {
			buf = append(buf, 0)
		}
		copy(buf[at+need:], buf[at+reserved:at+reserved+int(size)])
		buf = buf[:at+need+int(size)]
	}
	binary.PutUvarint(buf[at:], size)
	return buf
}

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// protobufHeader appends a MetricFamily up to its metrics.
func (w *writer) protobufHeader() {
	w.buf = append(w.buf, make([]byte, familyLength)...)
	w.buf = appendText(w.buf, familyName, w.name)
	w.buf = appendText(w.buf, familyHelp, w.help)
	w.buf = append(w.buf, familyType, protobufType(w.kind))
}

// protobufSample appends a Metric with one number.
func (w *writer) protobufSample(v uint64, pairs []string) {
	at := w.openMetric(pairs)
	field := byte(metricGauge)
	if w.kind == counter {
		field = metricCounter
	}
	w.buf = append(w.buf, field, 9, numberValue)
	w.buf = appendFloat(w.buf, w.unit.float(v))
	w.buf = patchLength(w.buf, at, metricLength)
}

// float returns a number in base units, as the text of it is read.
func (u unit) float(v uint64) float64 {
	switch u {
	case nanoseconds:
		return float64(v) / 1e9
	default:
		return float64(v)
	}
}

// openMetric appends a Metric up to its value and returns where its length goes.
func (w *writer) openMetric(pairs []string) int {
	w.buf = append(w.buf, familyMetric)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, metricLength)...)
	w.buf = append(w.buf, w.base...)
	for i := 0; i+1 < len(pairs); i += 2 {
		w.buf = appendPair(w.buf, pairs[i], pairs[i+1])
	}
	return at
}

// protobufHistogram appends a Metric with a histogram that is both: classic
// buckets, those of the text format, and native ones of schema 0, the powers
// of two. What took longer than the last power is in one native bucket more.
func (w *writer) protobufHistogram(h *qemu.Histogram, pairs []string) {
	metric := w.openMetric(pairs)
	w.buf = append(w.buf, metricHistogram)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, metricLength)...)
	var count uint64
	for _, n := range h.Buckets {
		count += n
	}
	w.buf = binary.AppendUvarint(append(w.buf, histogramCount), count)
	w.buf = appendFloat(append(w.buf, histogramSum), nanoseconds.float(h.Sum))
	eachLe(h, func(le float64, below uint64) {
		w.buf = append(w.buf, histogramBucket, byte(1+varintSize(below)+9), bucketBelow)
		w.buf = binary.AppendUvarint(w.buf, below)
		w.buf = appendFloat(append(w.buf, bucketLe), le)
	})
	w.nativeBuckets(h)
	w.buf = patchLength(w.buf, at, metricLength)
	w.buf = patchLength(w.buf, metric, metricLength)
}

// nativeBuckets appends the native side: everything up to the first power is
// in the bucket around zero, the rest is one span.
func (w *writer) nativeBuckets(h *qemu.Histogram) {
	w.buf = append(w.buf, histogramSchema, 0)
	w.buf = appendFloat(append(w.buf, histogramZeroThreshold), math.Ldexp(1, qemu.FirstBucket))
	w.buf = binary.AppendUvarint(append(w.buf, histogramZeroCount), h.Buckets[0])
	first, end := 1, len(h.Buckets)
	for first < end && h.Buckets[first] == 0 {
		first++
	}
	for end > first && h.Buckets[end-1] == 0 {
		end--
	}
	if first == end {
		return
	}
	w.buf = append(w.buf, histogramSpan)
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, shortLength)...)
	w.buf = binary.AppendVarint(append(w.buf, spanOffset), int64(qemu.FirstBucket+first))
	w.buf = binary.AppendUvarint(append(w.buf, spanLength), uint64(end-first))
	w.buf = patchLength(w.buf, at, shortLength)
	before := uint64(0)
	for _, n := range h.Buckets[first:end] {
		w.buf = binary.AppendVarint(append(w.buf, histogramDelta), int64(n-before))
		before = n
	}
}

// appendPair appends a Metric's LabelPair.
func appendPair(buf []byte, name, value string) []byte {
	if !utf8.ValidString(value) {
		value = string([]rune(value)) // as appendEscaped does it
	}
	size := 2 + varintSize(uint64(len(name))) + len(name) + varintSize(uint64(len(value))) + len(value)
	buf = binary.AppendUvarint(append(buf, metricLabel), uint64(size))
	buf = appendText(buf, pairName, name)
	return appendText(buf, pairValue, value)
}

// appendPairs appends the LabelPairs of labels that appendLabel wrote, apart
// by commas. Labels of a thing are written once as text, whatever the format.
func appendPairs(buf, text []byte) []byte {
	for len(text) > 0 {
		quote := bytes.IndexByte(text, '"')
		name := text[:quote-1]
		text = text[quote+1:]
		label := len(buf) + 1
		buf = append(buf, metricLabel)
		buf = append(buf, make([]byte, metricLength)...)
		buf = binary.AppendUvarint(append(buf, pairName), uint64(len(name)))
		buf = append(append(buf, name...), pairValue)
		value := len(buf)
		buf = append(buf, make([]byte, shortLength)...)
		buf, text = appendUnescaped(buf, text)
		buf = patchLength(buf, value, shortLength)
		buf = patchLength(buf, label, metricLength)
		text = bytes.TrimPrefix(text, []byte{','})
	}
	return buf
}

// appendUnescaped appends an escaped value up to its closing quote, and
// returns what comes after that.
func appendUnescaped(buf, text []byte) (value, rest []byte) {
	for {
		special := bytes.IndexAny(text, `\"`)
		buf = append(buf, text[:special]...)
		if text[special] == '"' {
			return buf, text[special+1:]
		}
		escaped := text[special+1]
		if escaped == 'n' {
			escaped = '\n'
		}
		buf = append(buf, escaped)
		text = text[special+2:]
	}
}

func appendText(buf []byte, field byte, text string) []byte {
	buf = binary.AppendUvarint(append(buf, field), uint64(len(text)))
	return append(buf, text...)
}

func appendFloat(buf []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
}
