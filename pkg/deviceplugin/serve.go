package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	kubeletSocket   = "kubelet.sock"
	registerTimeout = 10 * time.Second
	maxPath         = 107 // of a Unix socket, less the zero byte
)

// Server offers one resource to the kubelet, whenever there is one.
type Server struct {
	Dir      string // the kubelet's folder for device plugins, as this process sees it
	Resource string // what pods ask for
	// Look returns the devices as they are now.
	Look func(ctx context.Context) ([]Device, error)
	// Refresh is how often they are looked at, Poll how often it is found out
	// whether the kubelet has started anew.
	Refresh, Poll time.Duration
	Log           *slog.Logger
}

// Run serves until ctx ends. A kubelet that starts removes the sockets of all
// plugins and knows none of them: each registers again.
func (s Server) Run(ctx context.Context) error {
	if path := filepath.Join(s.Dir, socketName(s.Resource)); len(path) > maxPath {
		return fmt.Errorf("socket %s: a path of %d bytes, the most is %d; shorten the resource's name", path, len(path), maxPath)
	}
	plugin := newPlugin(s.Resource, s.Look, ctx.Done())
	if err := plugin.refresh(ctx); err != nil {
		s.Log.Warn("devices cannot be looked at", "resource", s.Resource, "error", err)
	}
	var refreshing sync.WaitGroup
	refreshing.Go(func() { s.keepFresh(ctx, plugin) })
	defer refreshing.Wait()
	before := ""
	for {
		kubelet, err := s.session(ctx, plugin)
		if ctx.Err() != nil {
			return nil
		}
		if problem := describe(err); problem != before && problem != "" {
			s.Log.Warn("resource is not registered with the kubelet", "resource", s.Resource, "error", err)
		}
		before = describe(err)
		s.await(ctx, func() bool { return err != nil || kubelet != identity(s.kubelet()) })
	}
}

func describe(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s Server) kubelet() string { return filepath.Join(s.Dir, kubeletSocket) }

// keepFresh follows the host.
func (s Server) keepFresh(ctx context.Context, plugin *plugin) {
	tick := time.NewTicker(s.Refresh)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := plugin.refresh(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("devices cannot be looked at", "resource", s.Resource, "error", err)
		}
	}
}

// session serves one kubelet until it, or the socket, is gone. It returns
// which kubelet that was.
func (s Server) session(ctx context.Context, plugin *plugin) (kubelet file, err error) {
	kubelet = identity(s.kubelet())
	if kubelet == (file{}) {
		return kubelet, fmt.Errorf("no kubelet listens at %s", s.kubelet())
	}
	path := filepath.Join(s.Dir, socketName(s.Resource))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kubelet, fmt.Errorf("remove an old socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return kubelet, fmt.Errorf("listen: %w", err)
	}
	own := identity(path)
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, plugin)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends by Stop, below
	defer serving.Wait()
	defer server.Stop()
	if err := s.register(ctx); err != nil {
		return kubelet, err
	}
	devices, _ := plugin.offer()
	s.Log.Info("resource is registered with the kubelet", "resource", s.Resource, "devices", len(devices))
	s.await(ctx, func() bool { return identity(path) != own || identity(s.kubelet()) != kubelet })
	return kubelet, nil
}

// await looks every Poll whether something has happened.
func (s Server) await(ctx context.Context, happened func() bool) {
	tick := time.NewTicker(s.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if happened() {
			return
		}
	}
}

// register introduces the plugin. The kubelet calls back before it answers.
func (s Server) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	client, err := dial(s.kubelet())
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // the answer is what counts
	_, err = api.NewRegistrationClient(client).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socketName(s.Resource), ResourceName: s.Resource, Options: &api.DevicePluginOptions{},
	})
	if err != nil {
		return fmt.Errorf("register with %s: %w", s.kubelet(), err)
	}
	return nil
}

// dial speaks gRPC over a Unix socket.
func dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///kubelet",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
	)
}

// file tells files apart that have had the same path.
type file struct {
	device, inode uint64
	changed       unix.Timespec
}

// identity returns that of a file, or the zero value when there is none.
func identity(path string) file {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return file{}
	}
	return file{stat.Dev, stat.Ino, stat.Ctim}
}
