package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/virtnode/nodeagent/pkg/qemu"
)

// VMs is where the numbers of virtual machines come from.
type VMs interface {
	Collect(ctx context.Context) *qemu.Snapshot
}

// Access judges a request: 200, or the status to refuse it with and why.
type Access func(r *http.Request) (status int, why string)

// Options says what a [Server] tells besides virtual machines. A function
// that is nil has nothing to tell.
type Options struct {
	Version string
	// Readiness returns nil before the first probe of the host.
	Readiness func() *Readiness
	// Network returns nil while nobody watches over the host's network.
	Network func() *Network
	// Publish returns nil while nothing is published to a cluster.
	Publish  func() *Publish
	Tasks    func() []TaskState
	Programs func() []ProgramState // in the kernel
	Config   func() ConfigState
	// Report returns the last readiness report, to be served as JSON; an
	// error means that there is none yet.
	Report func() (any, error)
	// Ready reports whether all tasks are, and a line for each that is not.
	Ready func() (bool, []string)
	Log   *slog.Logger
}

// Limits of the server. A scrape may take longer than all of them together
// only by the time that its collector takes.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 2 * time.Minute
	// writeTimeout ends an answer that nobody reads, and frees its memory.
	writeTimeout = 10 * time.Second
	drainTimeout = 5 * time.Second
	maxHeader    = 16 << 10
	// maxScrapes is how many answers to /metrics may be on their way.
	maxScrapes = 32
	// keptWriters is of how many the memory is kept: a pair of scrapers.
	keptWriters = 2
)

// Server answers HTTP requests about the agent and its machines.
type Server struct {
	opt      Options
	vms      atomic.Pointer[VMs]
	selected atomic.Pointer[selected]
	access   atomic.Pointer[Access]
	cutVM    atomic.Uint64 // series left out, by the limit
	cutPage  atomic.Uint64
	registry *prometheus.Registry
	landing  *template.Template
	scrapes  chan struct{}
	patience time.Duration // writeTimeout, but for tests
	writers  chan *writer  // whose memory is used again
	zips     compressors
}

// NewServer returns a server without virtual machines; see [Server.SetVMs].
func NewServer(opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opt:      opt,
		registry: newRegistry(),
		landing:  template.Must(template.New("landing").Parse(landingPage)),
		scrapes:  make(chan struct{}, maxScrapes),
		writers:  make(chan *writer, keptWriters),
		patience: writeTimeout,
	}
	s.zips.init()
	s.Select(Selection{})
	return s
}

// SetVMs replaces the source of virtual machines; nil means none. Answers on
// their way keep the one that they began with.
func (s *Server) SetVMs(vms VMs) {
	if vms == nil {
		s.vms.Store(nil)
		return
	}
	s.vms.Store(&vms)
}

// Select replaces what is served about virtual machines: at first, the
// standard groups without a limit.
func (s *Server) Select(selection Selection) { s.selected.Store(selection.compile()) }

// SetAccess replaces who judges requests for pages other than /healthz and
// /readyz; nil lets everybody read them.
func (s *Server) SetAccess(access Access) {
	if access == nil {
		s.access.Store(nil)
		return
	}
	s.access.Store(&access)
}

// Handler serves /metrics, /healthz, /readyz, /report and a landing page.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.guarded(s.serveMetrics))
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /report", s.guarded(s.serveReport))
	mux.HandleFunc("GET /{$}", s.guarded(s.serveLanding))
	return mux
}

// guarded asks who may see a page before it is made.
func (s *Server) guarded(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if access := s.access.Load(); access != nil {
			if status, why := (*access)(r); status != http.StatusOK {
				if status == http.StatusUnauthorized {
					w.Header().Set("WWW-Authenticate", "Bearer")
				}
				http.Error(w, why, status)
				return
			}
		}
		page(w, r)
	}
}

// Serve answers on listener until ctx is done, and then lets the answers on
// their way finish. The listener is closed in any case.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.ServeSecured(ctx, listener, "")
}

// ServeSecured is Serve with TLS and authentication, as a web configuration
// file says; see [CheckWebConfig]. Without a file it is plain.
func (s *Server) ServeSecured(ctx context.Context, listener net.Listener, webConfig string) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- serveHTTP(server, listener, webConfig, s.opt.Log) }()
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serve HTTP: %w", err), ignoreClosed(listener.Close()))
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-served //nolint:errcheck // http.ErrServerClosed, whatever Shutdown says
	if err != nil {
		return fmt.Errorf("stop serving HTTP: %w", err)
	}
	return nil
}

// serveMetrics answers a scrape within the scraper's own timeout.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	select {
	case s.scrapes <- struct{}{}:
		defer func() { <-s.scrapes }()
	default:
		http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := scrapeContext(r)
	defer cancel()
	page := s.writer()
	defer s.keep(page)
	page.reset(expfmt.NegotiateAccept(r.Header, expfmt.FmtText, expfmt.FmtProtoDelim).FormatType() == expfmt.TypeProtoDelim)
	if err := s.appendPage(ctx, page); err != nil {
		s.opt.Log.Warn("metrics page is incomplete", "err", err)
	}
	w.Header().Set("Content-Type", contentType(page.protobuf))
	w.Header().Add("Vary", "Accept")
	s.send(w, r, page.buf)
}

// writer returns one with memory to use again, if there is one. A sync.Pool
// would have lost it by the next scrape, as the garbage collector empties it.
func (s *Server) writer() *writer {
	select {
	case w := <-s.writers:
		return w
	default:
		return new(writer)
	}
}

func (s *Server) keep(w *writer) {
	select {
	case s.writers <- w:
	default: // so many are used by scrapes at the same time only
	}
}

// contentType names a page's format. Names of families are plain ASCII, so
// no scheme of escaping needs to be agreed on.
func contentType(protobuf bool) string {
	if protobuf {
		return "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// scrapeContext leaves a quarter of what the scraper allows, at most a
// second, for the way back.
func scrapeContext(r *http.Request) (context.Context, context.CancelFunc) {
	seconds, err := strconv.ParseFloat(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), 64)
	if err != nil || !(seconds > 0 && seconds < 3600) {
		return context.WithCancel(r.Context())
	}
	allowed := time.Duration(seconds * float64(time.Second))
	return context.WithTimeout(r.Context(), allowed-min(allowed/4, time.Second))
}

// send writes an answer, compressed if the client takes that. Who does not
// read it is cut off.
func (s *Server) send(w http.ResponseWriter, r *http.Request, body []byte) {
	// Without deadlines (a test's recorder), there is nobody to cut off.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.patience))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Add("Vary", "Accept-Encoding")
	coding := coding(r.Header.Get("Accept-Encoding"))
	pool := s.zips.of(coding)
	if pool == nil {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the client's loss
		return
	}
	w.Header().Set("Content-Encoding", coding)
	zip := pool.Get().(compressor)
	defer pool.Put(zip)
	zip.Reset(w)
	_, _ = zip.Write(body)
	_ = zip.Close()
	zip.Reset(io.Discard) // keep no client's connection
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s.send(w, r, []byte("ok\n"))
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ready, lines := true, []string(nil)
	if s.opt.Ready != nil {
		ready, lines = s.opt.Ready()
	}
	if !ready {
		http.Error(w, strings.Join(lines, "\n"), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	s.send(w, r, []byte("ready\n"))
}

func (s *Server) serveReport(w http.ResponseWriter, r *http.Request) {
	if s.opt.Report == nil {
		http.Error(w, "this agent makes no readiness report", http.StatusServiceUnavailable)
		return
	}
	report, err := s.opt.Report()
	if err != nil {
		http.Error(w, "no readiness report yet: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	body, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		http.Error(w, "the readiness report cannot be written as JSON: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	s.send(w, r, append(body, '\n'))
}

func (s *Server) serveLanding(w http.ResponseWriter, r *http.Request) {
	var page strings.Builder
	if err := s.landing.Execute(&page, s.opt.Version); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	s.send(w, r, []byte(page.String()))
}

const landingPage = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nodeagent</title>
<style>body { font: 1.1em/1.6 sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em; color: #111; background: #fff }</style>
</head>
<body>
<main>
<h1>nodeagent</h1>
<p>Version {{.}}</p>
<ul>
<li><a href="/metrics">Metrics</a> of this host's virtual machines and of the agent, for Prometheus</li>
<li><a href="/report">Readiness report</a> of this host, as JSON</li>
<li><a href="/readyz">Ready</a>: whether all tasks of the agent do their work</li>
<li><a href="/healthz">Health</a>: whether the agent answers</li>
</ul>
</main>
</body>
</html>
`
