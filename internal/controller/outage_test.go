package controller_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/test/cluster"
)

// gate lies between an agent and the API server, and can be shut.
type gate struct {
	to string

	mu       sync.Mutex
	listener net.Listener
	address  string
	through  map[net.Conn]bool
}

// gated returns the way through a new gate, which is open.
func gated(t *testing.T, config *rest.Config) (*gate, *rest.Config) {
	t.Helper()
	to, err := url.Parse(config.Host)
	if err != nil || to.Host == "" {
		to = &url.URL{Host: config.Host}
	}
	g := &gate{to: to.Host, address: "127.0.0.1:0", through: make(map[net.Conn]bool)}
	g.open(t)
	t.Cleanup(g.shut)
	way := rest.CopyConfig(config)
	way.Host = "https://" + g.address
	return g, way
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.listener, g.address = listener, listener.Addr().String()
	g.mu.Unlock()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go g.pass(connection)
		}
	}()
}

func (g *gate) pass(from net.Conn) {
	to, err := net.Dial("tcp", g.to)
	if err != nil {
		_ = from.Close()
		return
	}
	g.mu.Lock()
	g.through[from], g.through[to] = true, true
	g.mu.Unlock()
	go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
	_, _ = io.Copy(from, to)
	_ = from.Close()
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	for connection := range g.through {
		_ = connection.Close()
	}
	g.through = make(map[net.Conn]bool)
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(of string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), of)
}

const (
	lost  = "the cluster cannot be watched"
	found = "the cluster can be watched again"
)

// Without the API server the node goes on: it looks at its host, and says so
// once. When the server is back, it follows what has changed meanwhile.
func TestOutage(t *testing.T) {
	b := withKinds(t)
	n := b.node("outage-1", map[string]string{"rack": "outage"})
	log := new(lines)
	n.log = log
	g, way := gated(t, n.way)
	n.way = way
	n.start()
	b.apply("outage", strings.Replace(jumbo, "{nodeSelector: {matchLabels: {rack: a}}", "{disruption: Allow, nodeSelector: {matchLabels: {rack: outage}}", 1))
	n.has(9000)
	b.ready("outage", v1alpha1.NetworkConverged)

	g.shut()
	b.eventually("the outage is noted", func() (bool, string) { return log.count(lost) >= 2, "" })
	if err := n.kernel.Do(t.Context(), hostnet.Op{Do: hostnet.SetMTU, Link: "nic0", Number: 4000}); err != nil {
		t.Fatal(err)
	}
	n.reports("outage", v1alpha1.NetworkDrifted) // the test's own way to publish is open
	b.change("outage", func(s *v1alpha1.HostNetworkSpec) { s.Interfaces[0].MTU = 8000 })
	// Started anew without the server, it keeps what it knows.
	n.stop()
	n.start()
	b.eventually("it looks again", func() (bool, string) { return log.count("the network has drifted") >= 2, "" })
	if n.mtu() != 4000 {
		t.Errorf("MTU %d: something was changed", n.mtu())
	}
	b.eventually("the outage is noted again", func() (bool, string) { return log.count(lost) >= 4, "" })
	g.open(t)
	n.has(8000)
	b.ready("outage", v1alpha1.NetworkConverged)
	b.eventually("the end of the outage is noted", func() (bool, string) { return log.count(found) == 2, "" })
	if count := log.count(lost); count != 4 {
		t.Errorf("the outage is noted %d times, want once for each watch and start", count)
	}
}

// Before our kinds are there, agent and controller wait, and change nothing.
func TestBeforeTheCRDs(t *testing.T) {
	b := newBed(t, cluster.New(t))
	b.startController()
	n := b.node("early-1", map[string]string{"rack": "a"})
	log := new(lines)
	n.log = log
	n.start()
	b.eventually("the agent says what is missing", func() (bool, string) { return log.count("install the CustomResourceDefinitions") == 1, "" })
	b.install(crds)
	b.apply("early", strings.Replace(jumbo, "{nodeSelector", "{disruption: Allow, nodeSelector", 1))
	n.has(9000)
	b.ready("early", v1alpha1.NetworkConverged)
	if count := log.count(http.StatusText(http.StatusNotFound)); count > 1 {
		t.Errorf("noted %d times", count)
	}
}
