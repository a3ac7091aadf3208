package telemetry

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// conduct is what a daemon does in place of a reply. It returns when the
// connection ends.
type conduct func(net.Conn, []byte)

// impostor is a daemon that passes on what a real one says, until it is told
// to misbehave. It speaks libvirt's framing: every packet begins with its
// length, four bytes that count themselves.
type impostor struct {
	socket  string
	real    string
	honest  int32 // replies of each connection that come from the real one
	conduct atomic.Pointer[conduct]
	replace func([]byte) // changes replies on their way; nil does not

	mu    sync.Mutex
	conns map[net.Conn]bool
	work  sync.WaitGroup
}

// startImpostor listens in front of a real daemon's socket.
func startImpostor(t *testing.T, real string, honest int32, replace func([]byte)) *impostor {
	t.Helper()
	im := &impostor{socket: filepath.Join(t.TempDir(), "sock"), real: real, honest: honest, replace: replace, conns: make(map[net.Conn]bool)}
	listener, err := net.Listen("unix", im.socket)
	must(t, err)
	im.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			im.work.Go(func() { im.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		im.hangUp()
		im.work.Wait()
	})
	return im
}

// behave replaces the conduct, nil for honesty, and hangs up on everybody.
func (im *impostor) behave(c conduct) {
	if c == nil {
		im.conduct.Store(nil)
	} else {
		im.conduct.Store(&c)
	}
	im.hangUp()
}

func (im *impostor) hangUp() {
	im.mu.Lock()
	defer im.mu.Unlock()
	for conn := range im.conns {
		_ = conn.Close()
	}
}

// keep remembers a connection, to be closed by hangUp; the result forgets it.
func (im *impostor) keep(conn net.Conn) func() {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.conns[conn] = true
	return func() {
		im.mu.Lock()
		defer im.mu.Unlock()
		delete(im.conns, conn)
		_ = conn.Close()
	}
}

func (im *impostor) serve(client net.Conn) {
	defer im.keep(client)()
	server, err := net.Dial("unix", im.real)
	if err != nil {
		return
	}
	defer im.keep(server)()
	im.work.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	for n := int32(0); ; n++ {
		packet, err := readPacket(server)
		if err != nil {
			return
		}
		if c := im.conduct.Load(); c != nil && n >= im.honest {
			(*c)(client, packet)
			return
		}
		if im.replace != nil {
			im.replace(packet)
		}
		if _, err := client.Write(packet); err != nil {
			return
		}
	}
}

func readPacket(from io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size < 28 || size > 32<<20 {
		return nil, errors.New("the real daemon breaks the protocol")
	}
	packet := make([]byte, size)
	copy(packet, length[:])
	_, err := io.ReadFull(from, packet[4:])
	return packet, err
}

// conducts are what no daemon should do, by what it does, and after how many
// proper replies: 0 is in the place of the first, 2 in that of the first which
// has statistics.
var conducts = map[string]struct {
	act    conduct
	honest []int32
}{
	"never answers":           {func(conn net.Conn, _ []byte) { waitForEnd(conn) }, []int32{0, 2}},
	"hangs up":                {func(net.Conn, []byte) {}, []int32{0, 2}},
	"answers garbage":         {func(conn net.Conn, _ []byte) { flood(conn, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, []int32{0}},
	"announces 2 GiB":         {func(conn net.Conn, packet []byte) { announce(conn, packet, 2<<30-1) }, []int32{0, 2}},
	"announces less than is":  {func(conn net.Conn, packet []byte) { announce(conn, packet, 3) }, []int32{2}},
	"answers a byte a second": {drip, []int32{0, 2}},
	"answers without end":     {func(conn net.Conn, packet []byte) { announce(conn, packet, 4<<20) }, []int32{0, 2}},
	"answers half":            {answerHalf, []int32{2}},
	"answers another call":    {answerAnother, []int32{2}},
}

func answerHalf(conn net.Conn, packet []byte) {
	_, _ = conn.Write(packet[:len(packet)/2])
	waitForEnd(conn)
}

func answerAnother(conn net.Conn, packet []byte) {
	binary.BigEndian.PutUint32(packet[20:], 1<<31) // its serial number
	_, _ = conn.Write(packet)
	waitForEnd(conn)
}

func waitForEnd(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// announce sends a packet's header with another length, and then zeros without end.
func announce(conn net.Conn, packet []byte, length uint32) {
	binary.BigEndian.PutUint32(packet, length)
	if _, err := conn.Write(packet[:28]); err == nil {
		flood(conn, make([]byte, 1<<16))
	}
}

func flood(conn net.Conn, data []byte) {
	for {
		if _, err := conn.Write(data); err != nil {
			return
		}
	}
}

func drip(conn net.Conn, packet []byte) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range packet {
		if _, err := conn.Write(packet[i : i+1]); err != nil {
			return
		}
		<-tick.C
	}
	waitForEnd(conn)
}
