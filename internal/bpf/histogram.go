package bpf

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The buckets of a [Histogram]: bucket k holds times up to 2^(FirstExponent+k)
// seconds, the last one those that are longer.
const (
	Buckets       = 26
	FirstExponent = -20
)

// Histogram is how often something took how long. It only grows while it
// belongs to one process.
type Histogram struct {
	Buckets [Buckets]uint64 // not cumulative
	Sum     uint64          // nanoseconds, exact
}

// Count is how often it happened.
func (h *Histogram) Count() uint64 {
	var count uint64
	for _, n := range h.Buckets {
		count += n
	}
	return count
}

// histogramSize is the size of struct histogram in vm.h.
const histogramSize = 8 * (1 + Buckets)

// add adds what one CPU counted: struct histogram of vm.h.
func (h *Histogram) add(value *[histogramSize]byte) {
	h.Sum += binary.NativeEndian.Uint64(value[:])
	for k := range h.Buckets {
		h.Buckets[k] += binary.NativeEndian.Uint64(value[8*(1+k):])
	}
}

// memory is what a map of histograms shares with the kernel.
type memory interface {
	io.ReaderAt
	io.WriterAt
}

// table is a map of histograms: a row for each CPU, with one for each slot.
type table struct {
	memory      memory
	cpus, slots int

	// What is read into, and added up in. A scrape allocates nothing.
	value [histogramSize]byte
	sum   Histogram
}

// read adds up a slot over all CPUs, in sum. The kernel may write meanwhile. No
// number is torn by that, but Sum may be a time ahead of the buckets.
func (t *table) read(slot int) error {
	t.sum = Histogram{}
	for cpu := range t.cpus {
		if _, err := t.memory.ReadAt(t.value[:], t.offset(cpu, slot)); err != nil {
			return fmt.Errorf("read slot %d of CPU %d: %w", slot, cpu, err)
		}
		t.sum.add(&t.value)
	}
	return nil
}

// clear makes a slot fit for another process.
func (t *table) clear(slot int) error {
	t.value = [histogramSize]byte{}
	for cpu := range t.cpus {
		if _, err := t.memory.WriteAt(t.value[:], t.offset(cpu, slot)); err != nil {
			return fmt.Errorf("clear slot %d of CPU %d: %w", slot, cpu, err)
		}
	}
	return nil
}

func (t *table) offset(cpu, slot int) int64 { return int64(cpu*t.slots+slot) * histogramSize }
