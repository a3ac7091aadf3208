package qemu

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
)

// fakeDaemon is a libvirtd as far as this package talks to one: it takes
// connections, authenticates, opens and answers domain statistics, of all
// domains or of those that are named, group by group. As in libvirt, who asks
// a hung QEMU waits for it and holds the domain's lock, and who comes after
// gets what needs no lock. How it misbehaves can be changed at any time.
type fakeDaemon struct {
	t    testing.TB
	path string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	mode     mode
	named    bool // misbehave in calls that name a domain only
	domains  []fakeDomain
	refused  string                   // domain of which it cannot tell; empty: none
	unlisted map[string]bool          // domains that have gone when they are asked for by name
	calls    map[uint32]int           // stats calls received, by groups
	asked    map[string]int           // stats calls received, by the domain they name
	held     map[string]bool          // domains whose lock is held
	hung     map[string]chan struct{} // domains whose QEMU hangs; closed when it goes on
	opens    []uint32                 // flags of ConnectOpen
	release  chan struct{}            // closed when hung calls may end
	control  fakeControl
	wait     sync.WaitGroup
}

// mode is how a daemon answers domain statistics.
type mode int

const (
	answer      mode = iota
	hang             // take the call, say nothing
	hangOpen         // take the connection, say nothing
	hangMid          // stop in the middle of the reply
	closeConn        // close instead of answering
	closeMid         // close in the middle of the reply
	garbage          // bytes that are no packet
	hugeLength       // announce 2 GiB
	shortLength      // announce less than a header
	wrongSerial      // answer another call
	event            // send what nobody asked for
	refuse           // answer with an error
	nonsense         // a packet whose payload is no statistics
	needSASL         // ask for authentication that we do not have
	drip             // a byte of the reply at a time, none before it was waited for
	endless          // go on after the reply
)

// fakeDomain is a domain with its parameters by group.
type fakeDomain struct {
	name   string
	uuid   [16]byte
	off    bool
	job    []fakeParam // nil: there is none
	starts uint32
	params map[uint32][]fakeParam
}

type fakeParam struct {
	field string
	value any // int32, uint32, int64, uint64, float64, bool or string
}

// startDaemon listens on a host path below root.
func startDaemon(t testing.TB, dir, path string) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{t: t, path: filepath.Join(dir, path), conns: make(map[net.Conn]bool), calls: make(map[uint32]int), asked: make(map[string]int), held: make(map[string]bool), hung: make(map[string]chan struct{}), release: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
		t.Fatal(err)
	}
	d.start()
	t.Cleanup(func() {
		d.stop()
		close(d.release)
		d.wait.Wait()
	})
	return d
}

func (d *fakeDaemon) start() {
	d.t.Helper()
	listener, err := net.Listen("unix", d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.listener = listener
	d.mu.Unlock()
	d.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns[conn] = true
			d.mu.Unlock()
			d.wait.Go(func() { d.serve(conn) })
		}
	})
}

// stop ends the daemon as a kill does, but removes its socket.
func (d *fakeDaemon) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		_ = d.listener.Close()
	}
	for conn := range d.conns {
		_ = conn.Close()
	}
	d.conns = make(map[net.Conn]bool)
}

func (d *fakeDaemon) set(change func(*fakeDaemon)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *fakeDaemon) count(groups uint32) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[groups]
}

// times tells how often a domain was asked for by name.
func (d *fakeDaemon) times(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[name]
}

func (d *fakeDaemon) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	for {
		var head [headerSize]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[:])-headerSize)
		if _, err := io.ReadFull(conn, payload); err != nil {
			return
		}
		if err := d.reply(conn, head, payload); err != nil {
			return
		}
	}
}

var errHangUp = errors.New("the fake hangs up")

func (d *fakeDaemon) reply(conn net.Conn, head [headerSize]byte, args []byte) error {
	proc := binary.BigEndian.Uint32(head[12:])
	if isControl(proc) {
		return d.replyControl(conn, head, proc, args)
	}
	d.mu.Lock()
	mode := d.mode
	one := proc == procDomainStats && binary.BigEndian.Uint32(args) > 0
	if proc != procDomainStats && mode != hangOpen || d.named && !one {
		mode = answer
	}
	payload, status := d.handle(proc, args, mode)
	d.mu.Unlock()

	kind, size, cut := uint32(typeReply), uint32(headerSize+len(payload)), headerSize+len(payload)
	switch mode {
	case hang, hangOpen:
		cut = 0
	case hangMid, closeMid:
		cut /= 2
	case closeConn:
		return errHangUp
	case garbage:
		_, err := io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n")
		return err
	case hugeLength:
		size = 2 << 30
	case shortLength:
		size = headerSize - 1
	case wrongSerial:
		head[23]++
	case event:
		kind = 2
	case endless:
		if size = maxReply; one {
			size = maxDomainReply
		}
	default: // the rest is in the payload
	}
	binary.BigEndian.PutUint32(head[:], size)
	binary.BigEndian.PutUint32(head[16:], kind)
	binary.BigEndian.PutUint32(head[24:], status)
	packet := append(head[:], payload...)[:cut]
	if mode == drip {
		return d.drip(conn, packet)
	}
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	switch mode {
	case endless:
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return err
			}
		}
	case hang, hangOpen, hangMid:
		<-d.release
		return errHangUp
	case closeMid:
		return errHangUp
	default:
		return nil
	}
}

func (d *fakeDaemon) drip(conn net.Conn, packet []byte) error {
	for i := range packet {
		select {
		case <-d.release:
			return errHangUp
		case <-time.After(10 * time.Millisecond):
		}
		if _, err := conn.Write(packet[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// hang stops a domain's QEMU, until the returned function is called.
func (d *fakeDaemon) hang(name string) (resume func()) {
	hung := make(chan struct{})
	d.set(func(d *fakeDaemon) { d.hung[name] = hung })
	return func() {
		d.set(func(d *fakeDaemon) { delete(d.hung, name) })
		close(hung)
	}
}

// stats answers a call for domain statistics; d.mu is held, but not while
// the call waits for a QEMU.
func (d *fakeDaemon) stats(args []byte) []byte {
	w := walker{data: args}
	var names []string
	for n := w.u32(); n > 0; n-- {
		names = append(names, string(w.bytes()))
		w.take(20)
	}
	groups := w.u32()
	d.calls[groups]++
	chosen := d.domains
	if len(names) > 0 {
		chosen = nil
		for _, name := range names {
			d.asked[name]++
			if i := slices.IndexFunc(d.domains, func(dom fakeDomain) bool { return dom.name == name }); i >= 0 && !d.unlisted[name] {
				chosen = append(chosen, d.lock(d.domains[i]))
			}
		}
	}
	return encodeStats(chosen, groups)
}

// lock waits for a domain's QEMU, unless somebody else does so already: then
// it leaves out what only QEMU could tell.
func (d *fakeDaemon) lock(dom fakeDomain) fakeDomain {
	if hung := d.hung[dom.name]; hung != nil && !d.held[dom.name] {
		d.held[dom.name] = true
		d.mu.Unlock()
		select {
		case <-hung:
		case <-d.release:
		}
		d.mu.Lock()
		delete(d.held, dom.name)
	}
	if !d.held[dom.name] {
		return dom
	}
	partial := dom
	partial.params = make(map[uint32][]fakeParam)
	for group, params := range dom.params {
		for _, p := range params {
			if !needsQEMU.MatchString(p.field) {
				partial.params[group] = append(partial.params[group], p)
			}
		}
	}
	return partial
}

var needsQEMU = regexp.MustCompile(`^(balloon\.(rss|last-update)|vcpu\.\d+\.(halted|.*\.sum)|block\.\d+\.(rd|wr|fl)\.|iothread|vm|dirtyrate)`)

// handle carries out a call; d.mu is held.
func (d *fakeDaemon) handle(proc uint32, args []byte, mode mode) (payload []byte, status uint32) {
	u32 := binary.BigEndian.AppendUint32
	switch proc {
	case procAuthList:
		kind := uint32(authNone)
		if d.mode == needSASL {
			kind = 1
		}
		return u32(u32(nil, 1), kind), statusOK
	case procConnectOpen:
		if d.control.refuses(args) {
			return refusal(libvirt.ErrNoConnect, "no connection driver available"), statusError
		}
		d.opens = append(d.opens, binary.BigEndian.Uint32(args[len(args)-4:]))
		return nil, statusOK
	case procDomainStats:
		if mode == nonsense {
			return []byte{255, 255, 255, 255, 0, 0, 0, 9}, statusOK
		}
		if mode == refuse || d.refused != "" && bytes.Contains(args, []byte(d.refused)) {
			return append(appendString(u32(u32(u32(nil, 38), 10), 1), "access denied by fake"), make([]byte, 16)...), statusError
		}
		return d.stats(args), statusOK
	}
	if proc == procJobStats {
		w := walker{data: args}
		name := string(w.bytes())
		d.asked["job of "+name]++
		if i := slices.IndexFunc(d.domains, func(dom fakeDomain) bool { return dom.name == name && dom.job != nil }); i >= 0 {
			return encodeParams(u32(nil, min(2, uint32(len(d.domains[i].job)))), d.domains[i].job), statusOK
		}
		return append(appendString(u32(u32(u32(nil, 55), 10), 1), "no job"), make([]byte, 16)...), statusError
	}
	return appendString(u32(u32(u32(nil, 1), 7), 1), "unknown procedure"), statusError
}

func encodeStats(domains []fakeDomain, groups uint32) []byte {
	u32 := binary.BigEndian.AppendUint32
	out := u32(nil, uint32(len(domains)))
	for _, dom := range domains {
		out = appendString(out, dom.name)
		out = append(out, dom.uuid[:]...)
		if dom.off {
			out = u32(out, inactive)
		} else {
			out = u32(out, dom.starts)
		}
		var params []fakeParam
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if groups&bit != 0 {
				params = append(params, dom.params[bit]...)
			}
		}
		out = encodeParams(out, params)
	}
	return out
}

func encodeParams(out []byte, params []fakeParam) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(params)))
	for _, p := range params {
		out = appendParam(appendString(out, p.field), p.value)
	}
	return out
}

func appendParam(out []byte, value any) []byte {
	u32, u64 := binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint64
	switch v := value.(type) {
	case int32:
		return u32(u32(out, libvirtInt), uint32(v))
	case uint32:
		return u32(u32(out, libvirtUint), v)
	case int64:
		return u64(u32(out, libvirtLlong), uint64(v))
	case uint64:
		return u64(u32(out, libvirtUllong), v)
	case float64:
		return u64(u32(out, libvirtDouble), math.Float64bits(v))
	case bool:
		if v {
			return u32(u32(out, libvirtBoolean), 1)
		}
		return u32(u32(out, libvirtBoolean), 0)
	case string:
		return appendString(u32(out, libvirtString), v)
	}
	panic("no such parameter type")
}
