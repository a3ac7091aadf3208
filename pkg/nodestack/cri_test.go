package nodestack_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

// ask asks the runtime below a root, and waits for it on a busy machine too.
func ask(t *testing.T, dir string) nodestack.Runtime {
	t.Helper()
	return askFor(t, dir, time.Minute)
}

// askFor asks one that may hang, with a deadline that a test can wait for.
func askFor(t *testing.T, dir string, patience time.Duration) nodestack.Runtime {
	t.Helper()
	_, host := openStack(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return host.Live.Runtime(ctx, socketName)
}

func TestRuntimeTellsAboutItself(t *testing.T) {
	dir := shortDir(t)
	newFakeRuntime().serve(t, dir)
	got := ask(t, dir)
	systemd := true
	want := nodestack.Runtime{
		Socket: socketName, State: nodestack.RuntimeAnswered, Name: "containerd", Version: "v2.1.4",
		Status: kvmcheck.Known(socketName+" Status", nodestack.RuntimeStatus{
			Conditions: []nodestack.Condition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}},
			Settings: nodestack.RuntimeSettings{
				Snapshotter: "overlayfs", SystemdCgroup: &systemd, CNIConfDir: "/etc/cni/net.d", CNIBinDirs: []string{"/opt/cni/bin"},
			},
		}),
		CgroupDriver: kvmcheck.Known(socketName+" Status", nodestack.CgroupDriver{Name: "systemd"}),
		ImageStore:   kvmcheck.Known(socketName+" ImageFsInfo", "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRuntimeTellsItsCgroupDriver(t *testing.T) {
	for driver, want := range map[cri.CgroupDriver]string{cri.CgroupDriver_SYSTEMD: "systemd", cri.CgroupDriver_CGROUPFS: "cgroupfs"} {
		dir, fake := shortDir(t), newFakeRuntime()
		fake.driver = &driver
		fake.serve(t, dir)
		if got := ask(t, dir).CgroupDriver; got.Value != (nodestack.CgroupDriver{Name: want, Told: true}) {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
}

// TestHangingCallLosesItsOwnAnswer holds that what was answered stays known.
func TestHangingCallLosesItsOwnAnswer(t *testing.T) {
	for call, state := range map[string]nodestack.RuntimeState{
		"Version": nodestack.RuntimeUnknown, "Status": nodestack.RuntimeAnswered, "ImageFsInfo": nodestack.RuntimeAnswered,
	} {
		t.Run(call, func(t *testing.T) {
			dir, fake := shortDir(t), newFakeRuntime()
			fake.hang = call
			fake.serve(t, dir)
			got := askFor(t, dir, 2*time.Second)
			if got.State != state {
				t.Errorf("state %q, want %q", got.State, state)
			}
			why := got.Err + got.Status.Err + got.ImageStore.Err
			if !strings.Contains(why, socketName) || !strings.Contains(why, "no answer to "+call) {
				t.Errorf("it does not say what hung: %q", why)
			}
			if call == "ImageFsInfo" && !got.Status.Known {
				t.Error("the status was told before")
			}
		})
	}
}

// TestHostilePeers puts who is no container runtime on the socket.
func TestHostilePeers(t *testing.T) {
	for name, behave := range map[string]func(net.Conn){
		"never says a word":    func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) },
		"hangs up at once":     func(conn net.Conn) { _ = conn.Close() },
		"speaks HTTP/1":        func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		"speaks without end":   func(conn net.Conn) { _, _ = io.Copy(conn, endless{}) },
		"an HTTP/2 frame lies": func(conn net.Conn) { _, _ = conn.Write([]byte{0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			listener := listen(t, dir)
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					behave(conn)
					_ = conn.Close()
				}
			}()
			got := askFor(t, dir, 500*time.Millisecond)
			if got.State != nodestack.RuntimeUnknown || !strings.Contains(got.Err, socketName) || len(got.Err) > 500 {
				t.Errorf("got %+v", got)
			}
			_ = listener.Close()
			<-served
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestWhatIsOnTheSocketsPath(t *testing.T) {
	for name, test := range map[string]struct {
		make  func(t *testing.T, dir, file string)
		state nodestack.RuntimeState
	}{
		"nothing": {func(*testing.T, string, string) {}, nodestack.RuntimeAbsent},
		"a socket nobody listens on": {func(t *testing.T, dir, _ string) {
			listener := listen(t, dir).(*net.UnixListener)
			listener.SetUnlinkOnClose(false)
			_ = listener.Close()
		}, nodestack.RuntimeRefused},
		"a plain file": {func(t *testing.T, _, file string) {
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, nodestack.RuntimeRefused},
		"a loop of links": {func(t *testing.T, _, file string) {
			if err := os.Symlink(filepath.Base(file), file); err != nil {
				t.Fatal(err)
			}
		}, nodestack.RuntimeUnknown},
		"another service": {func(t *testing.T, dir, _ string) {
			fake := newFakeRuntime()
			serveOther(t, dir, fake)
		}, nodestack.RuntimeNoCRI},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			file := filepath.Join(dir, socketName)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			test.make(t, dir, file)
			got := ask(t, dir)
			if got.State != test.state {
				t.Errorf("got %+v, want %q", got, test.state)
			}
			if got.State == nodestack.RuntimeUnknown && !strings.Contains(got.Err, socketName) {
				t.Errorf("it does not name the socket: %q", got.Err)
			}
		})
	}
}

func TestLiesAreBounded(t *testing.T) {
	dir, fake := shortDir(t), newFakeRuntime()
	fake.name = strings.Repeat("x", 100_000) + "\x1b[31m"
	fake.info["config"] = `{"cni":{"binDir":"../../etc","confDir":"etc"}}`
	fake.store = "../../etc"
	fake.serve(t, dir)
	got := ask(t, dir)
	if len(got.Name) > 300 || got.ImageStore.Known || len(got.Status.Value.Settings.CNIBinDirs) != 0 {
		t.Errorf("got %+v", got)
	}
	dir, fake = shortDir(t), newFakeRuntime()
	fake.info["config"] = strings.Repeat(" ", 2<<20)
	fake.serve(t, dir)
	if got := ask(t, dir); got.State != nodestack.RuntimeAnswered || got.Status.Known || !strings.Contains(got.Status.Err, "larger than max") {
		t.Errorf("a message of 2 MiB: %+v", got)
	}
}
