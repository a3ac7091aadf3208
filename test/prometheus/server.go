package prometheus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// Server is a running Prometheus. Its methods may be called from several
// goroutines.
type Server struct {
	dir   string
	url   string
	keep  *exec.Cmd // the script that keeps the server
	alive *os.File  // the script ends the server when this end of its pipe closes
	log   *bytes.Buffer
	ended chan struct{} // closed when the script has ended, and log is whole

	closing sync.Once
	closed  error
}

// keepScript runs the server in "$2"... with its data and log in the folder $1.
// It kills the server when the pipe at descriptor 3 closes, by Close or by the
// death of the process that holds the other end, and then removes the folder.
const keepScript = `dir=$1
shift
"$@" 3<&- >"$dir/log" 2>&1 &
server=$!
{ cat >/dev/null; kill -9 $server; } <&3 2>/dev/null &
watcher=$!
wait $server
kill -9 $watcher 2>/dev/null
tail -n 20 "$dir/log"
rm -rf "$dir"
`

// startTimeout is generous: a start takes a second. A machine without a
// loopback interface never gets there.
const startTimeout = time.Minute

// New starts a server for a test, which scrapes the targets (host:port, path
// /metrics) every second, from its fifth second on. The test ends when the server does not start, and is
// skipped, or fails, when there is none (see hosttest.Need). The server is
// closed when the test ends.
func New(t testing.TB, targets ...string) *Server {
	t.Helper()
	hosttest.Need(t, hosttest.Libvirt, Missing())
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	server, err := Start(ctx, targets...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// attempts is how many ports are tried: another process may take one between
// its being found free and the server's listening.
const attempts = 3

// Start makes a server and returns when it is ready. The context bounds the
// start; the server lives until Close, or the end of this process.
func Start(ctx context.Context, targets ...string) (*Server, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	var errs []error
	for range attempts {
		server, err := launch(targets)
		if err != nil {
			return nil, err
		}
		err = server.ready(ctx)
		if err == nil {
			return server, nil
		}
		errs = append(errs, err, server.Close())
		if !errors.Is(err, errEnded) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// errEnded says that the server ended before it was ready.
var errEnded = errors.New("the server ended")

// launch starts the server's processes.
func launch(targets []string) (server *Server, err error) {
	dir, err := os.MkdirTemp("", "nodeagent-prometheus-")
	if err != nil {
		return nil, fmt.Errorf("make the server's folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := writeSettings(filepath.Join(dir, settingsFile), targets); err != nil {
		return nil, err
	}
	address, err := hosttest.FreeAddress()
	if err != nil {
		return nil, err
	}
	end, alive, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the server's pipe: %w", err)
	}
	defer func() { _ = end.Close() }()
	server = &Server{dir: dir, url: "http://" + address, alive: alive, log: new(bytes.Buffer), ended: make(chan struct{})}
	server.keep = exec.Command("/bin/sh", "-c", keepScript, "sh", dir, "prometheus",
		"--config.file="+filepath.Join(dir, settingsFile),
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address,
		"--log.level=warn")
	// A session of its own keeps a terminal's Ctrl-C away from the server.
	server.keep.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	server.keep.ExtraFiles = []*os.File{end}
	server.keep.Stdout = server.log
	if err := server.keep.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the server: %w", err), alive.Close())
	}
	go func() {
		defer close(server.ended)
		// The script's exit status says nothing about the server's.
		_ = server.keep.Wait()
	}()
	return server, nil
}

// ready waits until the server answers queries.
func (s *Server) ready(ctx context.Context) error {
	return hosttest.Poll(ctx, "the server", func() (bool, error) {
		select {
		case <-s.ended:
			return false, fmt.Errorf("%w: %s", errEnded, strings.TrimSpace(s.log.String()))
		default:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/-/ready", nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false, nil //nolint:nilerr // it does not listen yet
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
}

// URL is where the server's pages and API are.
func (s *Server) URL() string { return s.url }

// Close ends the server and removes its data.
func (s *Server) Close() error {
	s.closing.Do(func() {
		err := s.alive.Close()
		<-s.ended
		s.closed = errors.Join(err, os.RemoveAll(s.dir))
	})
	return s.closed
}
