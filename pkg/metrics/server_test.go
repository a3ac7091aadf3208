package metrics

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	dto "github.com/prometheus/client_model/go"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// fixed is a source of machines that tells the same every time.
type fixed qemu.Snapshot

func (f *fixed) Collect(context.Context) *qemu.Snapshot { return (*qemu.Snapshot)(f) }

// asked remembers the deadline of the scrape that it is asked for.
type asked struct{ left time.Duration }

func (a *asked) Collect(ctx context.Context) *qemu.Snapshot {
	if deadline, found := ctx.Deadline(); found {
		a.left = time.Until(deadline)
	}
	return &qemu.Snapshot{}
}

func get(t *testing.T, s *Server, path string, header ...string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	recorder := httptest.NewRecorder()
	s.Handler().ServeHTTP(recorder, request)
	return recorder, recorder.Body.String()
}

func fullServer() *Server {
	return NewServer(Options{
		Version: "v1.2.3<",
		Readiness: func() *Readiness {
			return &Readiness{
				Durable: "Ready", Duration: 12 * time.Millisecond, Last: time.Unix(1_700_000_050, 0), Events: true, Hung: 1,
				Probes: []ProbeCount{{"start", 1}, {"uevent", 4}},
				Checks: []CheckState{
					{Area: "kvm", Check: "device", Level: "required", Status: "NotReady", Reason: "DeviceMissing", Durable: "Ready", Transitions: 2},
					{Area: "kvm", Check: "nested", Level: "optional", Status: "Ready", Durable: "NotReady"},
					{Area: "iommu", Check: "kernel", Level: "optional", Status: "Unknown", Reason: "ReadFailed"},
					{Area: "memory", Check: "hugepages-1Gi", Level: "optional", Durable: "Ready"},
				},
			}
		},
		Publish: func() *Publish {
			return &Publish{
				Up: true, Writes: []NamedCount{{"labels", 2}}, Errors: []NamedCount{{"Unreachable", 5}}, Conflicts: 3, InConflict: 1,
				Labels: 20, LabelsCut: 4, LastSuccess: time.Unix(1_700_000_050, 0),
			}
		},
		Network: func() *Network {
			return &Network{
				Last: time.Unix(1_700_000_060, 0), Checked: true, Drift: 2, Refusals: 1, Plans: 30, Applies: 4, Rollbacks: 3, Stuck: true,
				VFs:     []VFCount{{"eth0", "fast", "used", 3}, {"eth0", "", "free", 4}},
				Cluster: &Following{Up: true, Errors: []NamedCount{{"Unauthorized", 6}}},
			}
		},
		Tasks: func() []TaskState {
			return []TaskState{{Name: "http", State: TaskReady}, {Name: "vms", State: "failed", Err: "no", Restarts: 3}}
		},
		Config: func() ConfigState { return ConfigState{Successful: true, LastSuccess: time.Unix(1_700_000_000, 0)} },
		Report: func() (any, error) { return map[string]string{"verdict": "Ready"}, nil },
	})
}

func TestMetricsPage(t *testing.T) {
	s := fullServer()
	now := time.Unix(1_700_000_100, 0)
	s.SetVMs(&fixed{Time: now, VMs: []qemu.VM{wholeVM("web", 1, 1, 1)}, Sources: []qemu.SourceState{
		{Source: "qemu:///system", Class: qemu.Light, Reason: qemu.Ready, LastSuccess: now.Add(-1500 * time.Millisecond)},
		{Source: "qemu:///system", Class: qemu.Monitor, Reason: qemu.CallTimeout, Abandoned: 2, Message: "late"},
	}})
	response, body := get(t, s, "/metrics")
	if got := response.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	parse(t, body)
	for _, want := range []string{
		`virtnode_vm_state{namespace="prod",name="web",uuid="6f1c1f2e-6b5a-4d0e-9a51-0a0b0c0d0e0f",state="running"} 1`,
		`virtnode_source_up{source="qemu:///system",class="light"} 1`,
		`virtnode_source_age_seconds{source="qemu:///system",class="light"} 1.5`,
		`virtnode_source_up{source="qemu:///system",class="monitor"} 0`,
		`virtnode_source_state{source="qemu:///system",class="monitor",reason="CallTimeout"} 1`,
		`virtnode_source_calls_abandoned_total{source="qemu:///system",class="monitor"} 2`,
		`virtnode_ready 1`,
		`virtnode_readiness_probes_total{trigger="uevent"} 4`,
		`virtnode_readiness_probe_duration_seconds 0.012`,
		`virtnode_readiness_last_probe_timestamp_seconds 1700000050`,
		`virtnode_readiness_events 1`,
		`virtnode_readiness_hung_calls 1`,
		`virtnode_check_ready{area="kvm",check="device",level="required"} 1`,
		`virtnode_check_ready{area="kvm",check="nested",level="optional"} 0`,
		`virtnode_check_status{area="kvm",check="device",level="required",status="NotReady",reason="DeviceMissing"} 1`,
		`virtnode_check_status{area="kvm",check="nested",level="optional",status="Ready"} 1`,
		`virtnode_check_status{area="iommu",check="kernel",level="optional",status="Unknown",reason="ReadFailed"} 1`,
		`virtnode_check_transitions_total{area="kvm",check="device"} 2`,
		`virtnode_check_transitions_total{area="kvm",check="nested"} 0`,
		`virtnode_node_publish_up 1`,
		`virtnode_node_publish_writes_total{object="labels"} 2`,
		`virtnode_node_publish_errors_total{reason="Unreachable"} 5`,
		`virtnode_net_cluster_up 1`,
		`virtnode_net_cluster_errors_total{reason="Unauthorized"} 6`,
		`virtnode_node_publish_conflicts_total 3`,
		`virtnode_node_publish_fields_in_conflict 1`,
		`virtnode_node_publish_labels 20`,
		`virtnode_node_publish_labels_cut 4`,
		`virtnode_node_publish_last_success_timestamp_seconds 1700000050`,
		`virtnode_net_drift 2`,
		`virtnode_net_refusals 1`,
		`virtnode_net_check_successful 1`,
		`virtnode_net_last_check_timestamp_seconds 1700000060`,
		`virtnode_net_stuck 1`,
		`virtnode_net_plans_total 30`,
		`virtnode_net_applies_total 4`,
		`virtnode_net_rollbacks_total 3`,
		`virtnode_net_vfs{pf="eth0",pool="fast",state="used"} 3`,
		`virtnode_net_vfs{pf="eth0",pool="",state="free"} 4`,
		`virtnode_task_up{task="http"} 1`,
		`virtnode_task_up{task="vms"} 0`,
		`virtnode_task_state{task="vms",state="failed"} 1`,
		`virtnode_task_restarts_total{task="vms"} 3`,
		`virtnode_config_last_reload_successful 1`,
		`virtnode_config_last_reload_success_timestamp_seconds 1700000000`,
		`virtnode_build_info{version="v1.2.3<",goversion="` + runtime.Version() + `",arch="` + runtime.GOARCH + `"} 1`,
		`virtnode_scrape_vm_duplicates 0`,
	} {
		if !strings.Contains(body, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	for _, want := range []string{"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\nvirtnode_scrape_duration_seconds 0", "\nvirtnode_scrape_vm_series "} {
		if !strings.Contains(body, want) {
			t.Errorf("missing: %s", strings.TrimSpace(want))
		}
	}
	for unknown, why := range map[string]string{
		`last_success_timestamp_seconds{source="qemu:///system",class="monitor"}`: "a source that was never read has a time of success",
		`virtnode_check_ready{area="iommu",check="kernel"`:                        "a check that is undecided has a verdict",
		`virtnode_check_status{area="memory",check="hugepages-1Gi"`:               "a check that is made no more has a status",
	} {
		if strings.Contains(body, unknown) {
			t.Error(why)
		}
	}
}

func TestPages(t *testing.T) {
	empty, full := NewServer(Options{}), fullServer()
	broken := NewServer(Options{
		Report:    func() (any, error) { return nil, errors.New("probes are running") },
		Readiness: func() *Readiness { return nil },
		Ready:     func() (bool, []string) { return false, []string{"vms: starting", "http: failed"} },
	})
	for name, tc := range map[string]struct {
		server *Server
		path   string
		status int
		body   string
	}{
		"healthz":                  {empty, "/healthz", 200, "ok\n"},
		"readyz":                   {full, "/readyz", 200, "ready\n"},
		"readyz before it is":      {broken, "/readyz", 503, "vms: starting\nhttp: failed\n"},
		"report":                   {full, "/report", 200, "{\n  \"verdict\": \"Ready\"\n}\n"},
		"report before there is":   {broken, "/report", 503, "no readiness report yet: probes are running\n"},
		"report that is not made":  {empty, "/report", 503, "this agent makes no readiness report\n"},
		"an unknown page":          {full, "/nothing", 404, "404 page not found\n"},
		"metrics without machines": {empty, "/metrics", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			response, body := get(t, tc.server, tc.path)
			if response.Code != tc.status || tc.body != "" && body != tc.body {
				t.Errorf("have %d %q, want %d %q", response.Code, body, tc.status, tc.body)
			}
		})
	}
	_, body := get(t, full, "/")
	for _, want := range []string{`<html lang="en">`, "v1.2.3&lt;", `href="/metrics"`, `href="/report"`, "<title>", "<main>"} {
		if !strings.Contains(body, want) {
			t.Errorf("landing page lacks %s", want)
		}
	}
	recorder := httptest.NewRecorder()
	full.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if recorder.Code != http.StatusMethodNotAllowed || recorder.Header().Get("Allow") == "" {
		t.Errorf("POST /metrics: %d, Allow %q", recorder.Code, recorder.Header().Get("Allow"))
	}
}

// TestContentNegotiation asks as Prometheus does, and others.
func TestContentNegotiation(t *testing.T) {
	const text, protobuf = "text/plain; version=0.0.4; charset=utf-8", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	const others = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4," +
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
	s := fullServer()
	s.SetVMs(&fixed{VMs: []qemu.VM{wholeVM("web", 1, 1, 1)}})
	for accept, want := range map[string]string{
		"":     text,
		"*/*":  text,
		others: text,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," + others: protobuf,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.1," + others: text,
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text":                      text,
		"application/json": text,
		";;;,,/":           text,
	} {
		response, body := get(t, s, "/metrics", "Accept", accept)
		if got := response.Header().Get("Content-Type"); got != want {
			t.Errorf("Accept %q: Content-Type %q, want %q", accept, got, want)
			continue
		}
		var families map[string]*dto.MetricFamily
		if want == protobuf {
			families = decode(t, []byte(body))
		} else {
			families = parse(t, body)
		}
		for _, name := range []string{"virtnode_vm_state", "virtnode_task_up", "go_goroutines", "process_resident_memory_bytes", "virtnode_scrape_duration_seconds"} {
			if families[name] == nil {
				t.Errorf("Accept %q: no %s", accept, name)
			}
		}
		if !slices.Contains(response.Header().Values("Vary"), "Accept") {
			t.Error("caches are not told that the page varies")
		}
	}
}

func TestSetVMs(t *testing.T) {
	s := NewServer(Options{})
	s.SetVMs(&fixed{VMs: []qemu.VM{{Name: "a"}}})
	if _, body := get(t, s, "/metrics"); !strings.Contains(body, `name="a"`) {
		t.Error("no machine")
	}
	s.SetVMs(nil)
	if _, body := get(t, s, "/metrics"); strings.Contains(body, "virtnode_vm_info") {
		t.Error("a machine of a source that was taken away")
	}
}

func TestCompression(t *testing.T) {
	s := fullServer()
	for header, want := range map[string]string{
		"gzip": "gzip", "deflate, gzip;q=1.0, *;q=0.5": "gzip", "*": "gzip", "GZIP": "gzip", "gzip;q=0": "", "gzip; q=0.0": "", "identity": "", "": "",
		"zstd": "zstd", "gzip, zstd": "zstd", "zstd;q=0.5, gzip;q=0.8": "gzip", "zstd;q=0, gzip": "gzip", "*, gzip;q=0": "", "gzip;q=x": "", "gzip;q=7, zstd": "zstd", "br": "",
	} {
		for range 2 { // the writer is used again
			response, body := get(t, s, "/readyz", "Accept-Encoding", header)
			if got := response.Header().Get("Content-Encoding"); got != want {
				t.Errorf("Accept-Encoding %q: have %q, want %q", header, got, want)
				continue
			}
			if got := decompress(t, want, body); got != "ready\n" {
				t.Errorf("Accept-Encoding %q: body %q", header, got)
			}
		}
	}
}

func decompress(t *testing.T, coding, body string) string {
	t.Helper()
	var reader io.Reader = strings.NewReader(body)
	switch coding {
	case "gzip":
		zip, err := gzip.NewReader(reader)
		if err != nil {
			t.Fatal(err)
		}
		reader = zip
	case "zstd":
		z, err := zstd.NewReader(reader)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		reader = z
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestTheScrapersTimeoutIsKept(t *testing.T) {
	s := NewServer(Options{})
	vms := new(asked)
	s.SetVMs(vms)
	for header, most := range map[string]time.Duration{"10": 9 * time.Second, "0.4": 300 * time.Millisecond} {
		get(t, s, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", header)
		if vms.left <= 0 || vms.left > most {
			t.Errorf("timeout %s: %v left for the collection, want at most %v", header, vms.left, most)
		}
	}
	for _, header := range []string{"", "x", "-1", "0", "NaN", "Inf", "1e300"} {
		vms.left = 0
		get(t, s, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", header)
		if vms.left != 0 {
			t.Errorf("timeout %q sets a deadline", header)
		}
	}
}

func TestConcurrentScrapes(t *testing.T) {
	s := fullServer()
	s.SetVMs(&fixed{VMs: []qemu.VM{wholeVM("web", 2, 2, 2), {Name: "other"}}})
	var scrapers sync.WaitGroup
	for range 20 {
		scrapers.Go(func() {
			for range 5 {
				if response, body := get(t, s, "/metrics"); response.Code == 200 && !strings.HasSuffix(body, "\nvirtnode_scrape_series_cut_total{limit=\"page\"} 0\n") {
					t.Error("a page is cut or mixed up")
				}
				s.SetVMs(&fixed{VMs: []qemu.VM{{Name: "swap"}}})
			}
		})
	}
	scrapers.Wait()
}

func TestTooManyScrapesAreRefused(t *testing.T) {
	s := NewServer(Options{})
	for range maxScrapes {
		s.scrapes <- struct{}{}
	}
	if response, _ := get(t, s, "/metrics"); response.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", response.Code)
	}
	if response, _ := get(t, s, "/healthz"); response.Code != http.StatusOK {
		t.Errorf("status of /healthz %d", response.Code)
	}
}

// pipes is a listener whose connections buffer nothing.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !met() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func TestAScraperThatStopsReadingIsCutOff(t *testing.T) {
	before := runtime.NumGoroutine()
	s := fullServer()
	s.patience = time.Second
	ctx, cancel := context.WithCancel(t.Context())
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	near, far := net.Pipe()
	listener.conns <- far
	if _, err := io.WriteString(near, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the scrape begins", func() bool { return len(s.scrapes) == 1 })
	eventually(t, "the scrape ends", func() bool { return len(s.scrapes) == 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	_ = near.Close()
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestServeFinishesWhatItBegan(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := NewServer(Options{Report: func() (any, error) { close(begun); <-finish; return 1, nil }})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	body := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + listener.Addr().String() + "/report")
		if err != nil {
			body <- err.Error()
			return
		}
		text, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Error(err)
		}
		body <- string(text)
	}()
	<-begun
	cancel()
	close(finish)
	if got := <-body; got != "1\n" {
		t.Errorf("have %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestAHangingLibvirtDoesNotHoldThePage runs the real collector against a
// socket that accepts and never answers.
func TestAHangingLibvirtDoesNotHoldThePage(t *testing.T) {
	dir, err := os.MkdirTemp("", "metrics")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "run/libvirt"), 0o755), os.MkdirAll(filepath.Join(dir, "proc"), 0o755),
		os.WriteFile(filepath.Join(dir, "proc/stat"), []byte("btime 1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "run/libvirt/libvirt-sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	vms, err := qemu.New(qemu.Options{Root: root, Budget: time.Hour, CallTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- vms.Run(ctx, func() { close(ready) }) }()
	<-ready
	s := NewServer(Options{})
	s.SetVMs(vms)
	eventually(t, "a page with what else there is", func() bool {
		_, body := get(t, s, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", "0.1")
		return strings.Contains(body, `virtnode_source_state{source="qemu:///system",class="light",reason="Pending"} 1`) &&
			strings.Contains(body, `virtnode_source_up{source="proc",class="kernel"} 1`)
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
