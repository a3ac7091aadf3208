package bpf

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// upper is the bound of bucket k in seconds.
func upper(k int) float64 {
	if k == Buckets-1 {
		return math.Inf(1)
	}
	return math.Ldexp(1, FirstExponent+k)
}

// TestBuckets asks the code in the kernel, since that is what counts.
func TestBuckets(t *testing.T) {
	hosttest.Need(t, hosttest.BPF, missing())
	spec, err := loadHistogramTest()
	if err != nil {
		t.Fatal(err)
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	bucket := func(ns uint64) int {
		got, err := collection.Programs[histogramTestProgBucket].Run(&ebpf.RunOptions{Context: ns})
		if err != nil {
			t.Fatal(err)
		}
		return int(got)
	}
	for k := range Buckets - 1 {
		bound := upper(k) * 1e9
		if got := bucket(uint64(bound)); got != k {
			t.Errorf("%g ns, within %g s: bucket %d, want %d", math.Floor(bound), upper(k), got, k)
		}
		// Scaling loses less than a nanosecond, and a part in 90,000.
		for _, ns := range []float64{bound*1.00002 + 1, bound * 1.5, bound*1.9999 - 1} {
			if got := bucket(uint64(math.Ceil(ns))); got != k+1 {
				t.Errorf("%g ns, beyond %g s: bucket %d, want %d", math.Ceil(ns), upper(k), got, k+1)
			}
		}
	}
	for ns, want := range map[uint64]int{0: 0, 1: 0, 500: 0, 33e9: Buckets - 1, 1e15: Buckets - 1} {
		if got := bucket(ns); got != want {
			t.Errorf("%d ns: bucket %d, want %d", ns, got, want)
		}
	}
}

// shared is memory as a map's is: it has an end.
type shared []byte

func (s shared) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(s).ReadAt(p, at)
}

func (s shared) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at > int64(len(s)) {
		return 0, io.ErrShortWrite
	}
	if n := copy(s[at:], p); n < len(p) {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}

func (h *Histogram) append(buf []byte) []byte {
	buf = binary.NativeEndian.AppendUint64(buf, h.Sum)
	for _, n := range h.Buckets {
		buf = binary.NativeEndian.AppendUint64(buf, n)
	}
	return buf
}

func TestTableAddsUpCPUs(t *testing.T) {
	const cpus, slots = 3, 4
	var memory shared
	want := make([]Histogram, slots)
	for cpu := range cpus {
		for slot := range slots {
			h := Histogram{Sum: uint64(1 + 10*cpu + 100*slot)}
			for k := range h.Buckets {
				h.Buckets[k] = uint64(cpu * slot * k)
				want[slot].Buckets[k] += h.Buckets[k]
			}
			want[slot].Sum += h.Sum
			memory = h.append(memory)
		}
	}
	at := table{memory: memory, cpus: cpus, slots: slots}
	read := func() []Histogram {
		got := make([]Histogram, slots)
		for slot := range got {
			if err := at.read(slot); err != nil {
				t.Fatal(err)
			}
			got[slot] = at.sum
		}
		return got
	}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Error(diff)
	}
	if err := at.clear(2); err != nil {
		t.Fatal(err)
	}
	want[2] = Histogram{}
	if diff := cmp.Diff(want, read()); diff != "" {
		t.Errorf("after slot 2 was cleared: %s", diff)
	}
	at.cpus++
	if err := at.read(0); err == nil {
		t.Error("a CPU that is not there was read")
	}
	if err := at.clear(0); err == nil {
		t.Error("a CPU that is not there was cleared")
	}
}

func FuzzHistogram(f *testing.F) {
	one := Histogram{Sum: 7}
	f.Add(one.append(nil), 1, 1, 0)
	f.Add(one.append(one.append(nil)), 2, 1, 0)
	f.Fuzz(func(t *testing.T, memory []byte, cpus, slots, slot int) {
		if cpus < 0 || slots < 1 || slot < 0 || slot >= slots || slots > 1<<16 || cpus > 1<<16 {
			return
		}
		at := table{memory: shared(memory), cpus: cpus, slots: slots}
		fits := cpus == 0 || ((cpus-1)*slots+slot+1)*histogramSize <= len(memory)
		if err := at.read(slot); (err == nil) != fits {
			t.Fatalf("%d bytes for %d CPUs and slot %d of %d: %v", len(memory), cpus, slot, slots, err)
		}
		if cpus == 1 && fits {
			from := slot * histogramSize
			if again := at.sum.append(nil); !bytes.Equal(again, memory[from:from+histogramSize]) {
				t.Errorf("%x became %x", memory[from:from+histogramSize], again)
			}
		}
	})
}
