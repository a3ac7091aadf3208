package qemu

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// reading is what one class of one source told at one time.
type reading struct {
	vms    []VM // each with the parts of the class only
	unused int  // fields without a place in VM

	carried map[string]bool // UUIDs of machines with numbers of the reading before
}

// fillFrom completes machines that were busy with something else at the time
// of the reading, whose numbers libvirt then leaves out, from the reading
// before. A machine that is busy twice in a row hangs, and is left as it is.
func (r *reading) fillFrom(before reading) {
	known := make(map[string]*VM, len(before.vms))
	for i := range before.vms {
		known[before.vms[i].UUID] = &before.vms[i]
	}
	for i := range r.vms {
		vm := &r.vms[i]
		old := known[vm.UUID]
		if !vm.interrupted() || old == nil || old.interrupted() || before.carried[vm.UUID] {
			continue
		}
		vm.Memory, vm.Blocks = old.Memory, old.Blocks
		if r.carried == nil {
			r.carried = make(map[string]bool)
		}
		r.carried[vm.UUID] = true
	}
}

// interrupted reports whether libvirt left out what needs the machine's job
// lock, although the machine runs: then it tells virtual CPUs, but no memory.
func (vm *VM) interrupted() bool {
	return len(vm.VCPUs) > 0 && !vm.Memory.Resident.Set
}

// source is one cost class of one daemon, or of /proc. At most one reading is
// in flight; one that ends late is there for the next scrape.
type source struct {
	name  string
	class Class
	read  func(context.Context) (reading, error)
	close func() // gives back what read keeps between calls
	now   func() time.Time
	log   *slog.Logger
	limit time.Duration // for one reading
	wait  time.Duration // for one reading, by all collections together

	mu        sync.Mutex
	flight    chan struct{} // closed when the reading in flight ends; nil when none is
	begun     time.Time     // when it began
	closed    bool
	last      reading
	success   time.Time // when last was read; zero when there is none
	state     SourceState
	timeouts  int // in a row
	notBefore time.Time
}

func newSource(name string, class Class, c *Collector) *source {
	return &source{
		name: name, class: class, now: c.opt.Now, log: c.opt.Log, limit: c.opt.CallTimeout, wait: c.opt.Budget,
		close: func() {},
		state: SourceState{Source: name, Class: class, Reason: Pending},
	}
}

// newProcSource reads the kernel class.
func newProcSource(c *Collector) *source {
	s := newSource(SourceProc, Kernel, c)
	s.read = newScanner(c.opt.Root, c.opt.Now).read
	return s
}

// newDaemonSource reads one class of a libvirt daemon over a connection of its own.
func newDaemonSource(t target, class Class, c *Collector) *source {
	s := newSource(t.name, class, c)
	d := &daemon{root: c.opt.Root, target: t, groups: libvirt.DomainStatsState | libvirt.DomainStatsInterface}
	if class == Monitor {
		d.groups = libvirt.DomainStatsCPUTotal | libvirt.DomainStatsBalloon | libvirt.DomainStatsVCPU | libvirt.DomainStatsBlock
	}
	s.read, s.close = d.read, d.close
	return s
}

// start begins a reading, unless one is in flight or the source is in
// quarantine, and returns a channel that is closed when it has ended. A nil
// channel means that there is nothing to wait for, or that the reading is late
// already. run starts a goroutine, or reports that it cannot any more.
func (s *source) start(ctx context.Context, run func(func()) bool) <-chan struct{} {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flight != nil && now.Sub(s.begun) >= s.wait:
		return nil
	case s.flight != nil:
		return s.flight
	case s.closed || now.Before(s.notBefore):
		return nil
	}
	flight := make(chan struct{})
	if !run(func() { s.round(ctx, flight) }) {
		return nil
	}
	s.flight, s.begun = flight, now
	return flight
}

// round makes one reading and stores it.
func (s *source) round(ctx context.Context, flight chan struct{}) {
	limited, cancel := context.WithTimeout(ctx, s.limit)
	r, err := s.read(limited)
	cancel()

	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.store(r, err)
	}
	s.flight = nil
	if s.closed {
		s.close()
	}
	close(flight)
}

// store takes over the result of a reading.
func (s *source) store(r reading, err error) {
	now := s.now()
	before := s.state.Reason
	s.state.Reason, s.state.Message = reasonOf(err), ""
	switch {
	case err == nil:
		r.fillFrom(s.last)
		s.last, s.success, s.timeouts = r, now, 0
		s.state.LastSuccess, s.state.Unused = now, r.unused
	case s.state.Reason == CallTimeout:
		// What was read before may be served while it is young: others than
		// the one that hangs have a part in it.
		s.state.Message = err.Error()
		s.state.Abandoned++
		s.timeouts++
		s.notBefore = now.Add(quarantine(s.timeouts, s.limit))
	default:
		s.state.Message = err.Error()
		s.last, s.success, s.timeouts = reading{}, time.Time{}, 0
	}
	if before == s.state.Reason {
		return
	}
	if err != nil {
		s.log.Warn("telemetry source is down", "source", s.name, "class", string(s.class), "reason", string(s.state.Reason), "err", err)
	} else {
		s.log.Info("telemetry source is up", "source", s.name, "class", string(s.class))
	}
}

// quarantine is how long a source rests after n timeouts in a row. There is
// no rest after the first: when a QEMU hangs, the abandoned call holds that
// machine's lock in libvirt, and the next one gets round it.
func quarantine(n int, limit time.Duration) time.Duration {
	return min(limit*time.Duration(1<<min(n-1, 10)-1), time.Minute)
}

// result returns the last reading if it is younger than maxAge, and the
// source's state.
func (s *source) result(now time.Time, maxAge time.Duration) (*reading, SourceState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.success.IsZero() || now.Sub(s.success) > maxAge {
		return nil, s.state
	}
	last := s.last
	return &last, s.state
}

// stop makes the source's end known. A reading in flight ends with its context.
func (s *source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.flight == nil {
		s.close()
	}
}

// reasonOf says in one word why a reading failed.
func reasonOf(err error) Reason {
	var refused *callError
	switch {
	case err == nil:
		return Ready
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return CallTimeout
	case errors.Is(err, errBadReply):
		return BadReply
	case errors.Is(err, errAuthRequired):
		return AuthRequired
	case errors.As(err, &refused):
		return CallRefused
	case errors.Is(err, fs.ErrNotExist):
		return SocketMissing
	case errors.Is(err, fs.ErrPermission):
		return PermissionDenied
	case errors.Is(err, unix.ECONNREFUSED):
		return SocketRefused
	case lost(err):
		return ConnectionLost
	}
	return Failed
}

// lost reports whether the other end of a connection has gone.
func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// daemon is a libvirt daemon as one class reads it.
type daemon struct {
	root   *hostfs.Root
	target target
	groups libvirt.DomainStatsTypes
	conn   *connection // nil when there is none
}

// read asks for the class's groups. A kept connection that has died since the
// last scrape is replaced at once: the daemon may be back.
func (d *daemon) read(ctx context.Context) (reading, error) {
	kept := d.conn != nil
	payload, err := d.ask(ctx)
	if kept && lost(err) {
		payload, err = d.ask(ctx)
	}
	if err != nil {
		return reading{}, err
	}
	r, err := decodeStats(payload)
	for i := range r.vms {
		r.vms[i].Source = d.target.name
	}
	return r, err
}

func (d *daemon) ask(ctx context.Context) ([]byte, error) {
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	payload, err := d.conn.stats(ctx, d.groups)
	var refused *callError
	if err != nil && !errors.As(err, &refused) {
		d.close()
	}
	return payload, err
}

func (d *daemon) connect(ctx context.Context) error {
	if d.conn != nil {
		return nil
	}
	conn, err := connect(ctx, d.root, d.target)
	d.conn = conn
	return err
}

func (d *daemon) close() {
	if d.conn != nil {
		_ = d.conn.conn.Close() // nothing is lost with a connection that only reads
		d.conn = nil
	}
}
