package hostfs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long one call may take. A healthy read takes some
	// microseconds; the proof of KVM, the longest call, gives up by itself
	// after a second.
	patience = 2 * time.Second
	// maxCalls is how many calls may be on their way, hung ones included.
	maxCalls = 32
)

// ErrHung says that a call has not returned in time. Nobody can end it, so it
// goes on, and is not made again until it has returned.
var ErrHung = errors.New("did not answer")

// calls are the calls that are on their way to one host.
type calls struct {
	mu     sync.Mutex
	active int
	hung   map[string]*call // by "OP PATH"
}

func newCalls() *calls { return &calls{hung: make(map[string]*call)} }

// call is one call; the mutex of calls protects it.
type call struct {
	since    time.Time
	returned bool
}

// Within returns the same root with reads that end: at the latest with ctx, or
// when a single one has not answered in two seconds. What hung before fails at
// once until it returns, so that however often a host is read, each place
// holds at most one goroutine, and all of them together at most 32; see [Root.Apart].
func (r *Root) Within(ctx context.Context) *Root {
	bound := *r
	bound.ctx = ctx
	return &bound
}

// Apart returns the same root with calls of its own: what hangs for others takes
// no place from its reads, nor the other way round.
func (r *Root) Apart() *Root {
	apart := *r
	apart.calls = newCalls()
	return &apart
}

// Hung lists the calls that have not returned, as "OP PATH".
func (r *Root) Hung() []string {
	r.calls.mu.Lock()
	defer r.calls.mu.Unlock()
	return slices.Sorted(maps.Keys(r.calls.hung))
}

// Within runs what reads a path past a root, such as an ioctl or a library,
// as the reads of a root made by [Root.Within] run. The function must not use
// what its caller uses after it was given up.
func Within[T any](r *Root, op, name string, read func() (T, error)) (T, error) {
	var none T
	if r.ctx == nil {
		return read()
	}
	key := op + " " + name
	this, err := r.calls.begin(r.ctx, key)
	if err != nil {
		return none, pathError(op, name, err)
	}
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := read()
		r.calls.end(key, this)
		answered <- answer{value, err}
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-late.C:
		err = fmt.Errorf("%w within %v", ErrHung, patience)
	case <-r.ctx.Done():
		err = fmt.Errorf("%w before the end of the check: %w", ErrHung, context.Cause(r.ctx))
	}
	r.calls.abandon(key, this)
	return none, pathError(op, name, err)
}

// begin takes a slot, unless there is no time, no slot, or a call that hangs
// in the same place.
func (c *calls) begin(ctx context.Context, key string) (*call, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("not read before the end of the check: %w", context.Cause(ctx))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.hung[key]; before != nil {
		return nil, fmt.Errorf("%w since %s", ErrHung, before.since.UTC().Format(time.RFC3339))
	}
	if c.active >= maxCalls {
		return nil, fmt.Errorf("not read: %d other calls have not returned", c.active)
	}
	c.active++
	return &call{since: time.Now()}, nil
}

func (c *calls) end(key string, this *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	this.returned = true
	if c.hung[key] == this {
		delete(c.hung, key)
	}
}

// abandon notes a call that is waited for no longer, unless it has returned by now.
func (c *calls) abandon(key string, this *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !this.returned {
		c.hung[key] = this
	}
}
