package qemu

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/digitalocean/go-libvirt"
)

// fakeDaemon is a libvirtd as far as this package talks to one: it takes
// connections, authenticates, opens and answers domain statistics, group by
// group. How it misbehaves can be changed at any time.
type fakeDaemon struct {
	t    testing.TB
	path string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	mode     mode
	domains  []fakeDomain
	calls    map[uint32]int // stats calls received, by groups
	opens    []uint32       // flags of ConnectOpen
	release  chan struct{}  // closed when hung calls may end
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
)

// fakeDomain is a domain with its parameters by group.
type fakeDomain struct {
	name   string
	uuid   [16]byte
	params map[uint32][]fakeParam
}

type fakeParam struct {
	field string
	value any // int32, uint32, int64, uint64, float64, bool or string
}

// startDaemon listens on a host path below root.
func startDaemon(t testing.TB, dir, path string) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{t: t, path: filepath.Join(dir, path), conns: make(map[net.Conn]bool), calls: make(map[uint32]int), release: make(chan struct{})}
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
	payload, status := d.handle(proc, args)
	d.mu.Unlock()

	if proc != procDomainStats && mode != hangOpen {
		mode = answer
	}
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
	default: // the rest is in the payload
	}
	binary.BigEndian.PutUint32(head[:], size)
	binary.BigEndian.PutUint32(head[16:], kind)
	binary.BigEndian.PutUint32(head[24:], status)
	if _, err := conn.Write(append(head[:], payload...)[:cut]); err != nil {
		return err
	}
	switch mode {
	case hang, hangOpen, hangMid:
		<-d.release
		return errHangUp
	case closeMid:
		return errHangUp
	default:
		return nil
	}
}

// handle carries out a call; d.mu is held.
func (d *fakeDaemon) handle(proc uint32, args []byte) (payload []byte, status uint32) {
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
		groups := binary.BigEndian.Uint32(args[4:])
		d.calls[groups]++
		if d.mode == nonsense {
			return []byte{255, 255, 255, 255, 0, 0, 0, 9}, statusOK
		}
		if d.mode == refuse {
			return append(appendString(u32(u32(u32(nil, 38), 10), 1), "access denied by fake"), make([]byte, 16)...), statusError
		}
		return encodeStats(d.domains, groups), statusOK
	}
	return appendString(u32(u32(u32(nil, 1), 7), 1), "unknown procedure"), statusError
}

func encodeStats(domains []fakeDomain, groups uint32) []byte {
	u32 := binary.BigEndian.AppendUint32
	out := u32(nil, uint32(len(domains)))
	for _, dom := range domains {
		out = appendString(out, dom.name)
		out = append(out, dom.uuid[:]...)
		out = u32(out, math.MaxUint32)
		var params []fakeParam
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if groups&bit != 0 {
				params = append(params, dom.params[bit]...)
			}
		}
		out = u32(out, uint32(len(params)))
		for _, p := range params {
			out = appendParam(appendString(out, p.field), p.value)
		}
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
