package main

import (
	"context"
	"sync"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// takeover is how long one collector waits for another when it takes its place:
// for the scrapes that the one before serves, and as a scrape for the next to run.
// A reading that hangs may take longer.
const takeover = 2 * time.Second

// machines are collected by one collector after another. While one takes the
// place of another a scrape waits: a page without machines would end all their series.
type machines struct {
	mu sync.Mutex
	by *served
}

// served is a collector and the scrapes that use it.
type served struct {
	collector *qemu.Collector
	running   chan struct{} // closed when it does
	scrapes   sync.WaitGroup
}

// expect lets scrapes wait for a collector, and returns when the one before is not
// used any more, and may be stopped. Then the next is to be run, and running called.
func (m *machines) expect(next *qemu.Collector) (running func()) {
	by := &served{collector: next, running: make(chan struct{})}
	m.mu.Lock()
	before := m.by
	m.by = by
	m.mu.Unlock()
	if before != nil {
		unused := make(chan struct{})
		go func() { before.scrapes.Wait(); close(unused) }()
		select {
		case <-unused:
		case <-time.After(takeover):
		}
	}
	return sync.OnceFunc(func() { close(by.running) })
}

// Collect implements [metrics.VMs].
func (m *machines) Collect(ctx context.Context) *qemu.Snapshot {
	m.mu.Lock()
	by := m.by
	by.scrapes.Add(1)
	m.mu.Unlock()
	defer by.scrapes.Done()
	select {
	case <-by.running:
		return by.collector.Collect(ctx)
	case <-time.After(takeover):
	case <-ctx.Done():
	}
	return &qemu.Snapshot{Time: time.Now()}
}
