package nodestack_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/nodestack"
)

const socketName = "/run/containerd/containerd.sock"

// fakeRuntime is a container runtime with the state that the CRI shows.
type fakeRuntime struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer

	name       string
	conditions map[string]bool
	info       map[string]string
	driver     *cri.CgroupDriver // nil: from before RuntimeConfig
	store      string
	hang       string // the call that never answers
	gone       chan struct{}
}

// newFakeRuntime is a containerd with its network in place.
func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{
		name:       "containerd",
		conditions: map[string]bool{"RuntimeReady": true, "NetworkReady": true},
		info: map[string]string{"config": `{"containerd":{"snapshotter":"overlayfs","defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}},
			"cni":{"binDir":"/opt/cni/bin","confDir":"/etc/cni/net.d"}}`},
		store: "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs",
		gone:  make(chan struct{}),
	}
}

func (f *fakeRuntime) wait(ctx context.Context, call string) error {
	if f.hang != call {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.gone:
		return status.Error(codes.Unavailable, "stopped")
	}
}

func (f *fakeRuntime) Version(ctx context.Context, _ *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: f.name, RuntimeVersion: "v2.1.4", RuntimeApiVersion: "v1"}, f.wait(ctx, "Version")
}

func (f *fakeRuntime) Status(ctx context.Context, request *cri.StatusRequest) (*cri.StatusResponse, error) {
	reply := &cri.StatusResponse{Status: &cri.RuntimeStatus{}}
	for _, name := range []string{"RuntimeReady", "NetworkReady"} {
		if value, told := f.conditions[name]; told {
			reply.Status.Conditions = append(reply.Status.Conditions, &cri.RuntimeCondition{Type: name, Status: value})
		}
	}
	if request.GetVerbose() {
		reply.Info = f.info
	}
	return reply, f.wait(ctx, "Status")
}

func (f *fakeRuntime) RuntimeConfig(ctx context.Context, request *cri.RuntimeConfigRequest) (*cri.RuntimeConfigResponse, error) {
	if f.driver == nil {
		return f.UnimplementedRuntimeServiceServer.RuntimeConfig(ctx, request)
	}
	return &cri.RuntimeConfigResponse{Linux: &cri.LinuxRuntimeConfiguration{CgroupDriver: *f.driver}}, f.wait(ctx, "RuntimeConfig")
}

func (f *fakeRuntime) ImageFsInfo(ctx context.Context, _ *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{
		{FsId: &cri.FilesystemIdentifier{Mountpoint: f.store}},
	}}, f.wait(ctx, "ImageFsInfo")
}

// serve listens below a host's root, until the test ends.
func (f *fakeRuntime) serve(t *testing.T, root string) {
	t.Helper()
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, f)
	cri.RegisterImageServiceServer(server, f)
	listener := listen(t, root)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		close(f.gone)
		server.Stop()
		running.Wait()
	})
}

func listen(t *testing.T, root string) net.Listener {
	t.Helper()
	file := filepath.Join(root, socketName)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// shortDir is a folder whose sockets fit into an address of 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "stack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func openStack(t *testing.T, dir string) (*hostfs.Root, nodestack.Host) {
	t.Helper()
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	host, err := nodestack.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, host
}

// serveOther listens with a gRPC server that is no container runtime.
func serveOther(t *testing.T, root string, f *fakeRuntime) {
	t.Helper()
	server := grpc.NewServer()
	cri.RegisterImageServiceServer(server, f)
	listener := listen(t, root)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		running.Wait()
	})
}
