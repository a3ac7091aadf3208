package nodestack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
)

// Bounds on what a runtime may say.
const (
	maxReply  = 1 << 20 // bytes of a message; a verbose status of containerd has about 10 KiB
	maxHeader = 16 << 10
	maxText   = 256 // bytes of a text that goes into a message
)

// Runtime asks for RuntimeService.Version, Status and RuntimeConfig and for
// ImageService.ImageFsInfo of the CRI, runtime.v1. Who listens but does not
// answer before ctx ends leaves its answers unknown.
func (l hostLive) Runtime(ctx context.Context, socket string) Runtime {
	answer := Runtime{Socket: socket}
	conn, err := l.dial(ctx, socket)
	switch {
	case hostfs.Absent(err):
		answer.State = RuntimeAbsent
		return answer
	case errors.Is(err, unix.ECONNREFUSED):
		answer.State = RuntimeRefused
		return answer
	case err != nil:
		answer.Err = err.Error()
		return answer
	}
	client, err := newClient(conn)
	if err != nil {
		answer.Err = fmt.Sprintf("%s: %v", socket, errors.Join(err, conn.Close()))
		return answer
	}
	defer client.Close() //nolint:errcheck // nothing was asked of it that closing could lose
	answer.ask(ctx, client)
	return answer
}

// dial connects to a socket below the root.
func (l hostLive) dial(ctx context.Context, socket string) (net.Conn, error) {
	there, err := l.root.Exists(socket)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, hostError("connect", socket, unix.ENOENT)
	}
	full, err := l.root.Resolve(socket)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", full)
	if err == nil {
		return conn, nil
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		err = errno
	}
	return nil, hostError("connect", socket, err)
}

// newClient speaks gRPC over a connection, and over that one only.
func newClient(conn net.Conn) (*grpc.ClientConn, error) {
	once := make(chan net.Conn, 1)
	once <- conn
	return grpc.NewClient("passthrough:///runtime",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case conn := <-once:
				return conn, nil
			default:
				return nil, errors.New("it closed the connection")
			}
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithNoProxy(),
		grpc.WithMaxHeaderListSize(maxHeader),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
	)
}

// ask fills in what the runtime answers.
func (r *Runtime) ask(ctx context.Context, client *grpc.ClientConn) {
	service := cri.NewRuntimeServiceClient(client)
	version, err := service.Version(ctx, &cri.VersionRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		r.State = RuntimeNoCRI
		return
	case err != nil:
		r.Err = callError(r.Socket, "Version", err).Error()
		return
	}
	r.State = RuntimeAnswered
	r.Name, r.Version = clip(version.GetRuntimeName()), clip(version.GetRuntimeVersion())

	source := r.Socket + " Status"
	state, err := service.Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		r.Status = kvmcheck.NotKnown[RuntimeStatus](source, callError(r.Socket, "Status", err))
	} else {
		r.Status = kvmcheck.Known(source, runtimeStatus(state))
	}

	source = r.Socket + " RuntimeConfig"
	config, err := service.RuntimeConfig(ctx, &cri.RuntimeConfigRequest{})
	r.CgroupDriver = r.cgroupDriver(source, config, err)

	source = r.Socket + " ImageFsInfo"
	images, err := cri.NewImageServiceClient(client).ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err == nil && len(images.GetImageFilesystems()) == 0 {
		err = errors.New("it names no file system")
	}
	if err != nil {
		r.ImageStore = kvmcheck.NotKnown[string](source, callError(r.Socket, "ImageFsInfo", err))
		return
	}
	store := images.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	if !path.IsAbs(store) || len(store) > maxFlag {
		r.ImageStore = kvmcheck.NotKnown[string](source, fmt.Errorf("%.64q is no directory", store))
		return
	}
	r.ImageStore = kvmcheck.Known(source, path.Clean(store))
}

// runtimeStatus takes what checks ask about out of a Status reply.
func runtimeStatus(reply *cri.StatusResponse) RuntimeStatus {
	result := RuntimeStatus{Conditions: []Condition{}}
	for _, condition := range reply.GetStatus().GetConditions() {
		result.Conditions = append(result.Conditions, Condition{
			Type: clip(condition.GetType()), Status: condition.GetStatus(),
			Reason: clip(condition.GetReason()), Message: clip(condition.GetMessage()),
		})
	}
	// What does not parse is no setting that we know.
	result.Settings, _ = parseSettings([]byte(reply.GetInfo()["config"]))
	return result
}

// cgroupDriver takes the answer to RuntimeConfig, or what the configuration
// says of a runtime from before that call.
func (r *Runtime) cgroupDriver(source string, config *cri.RuntimeConfigResponse, err error) kvmcheck.Reading[CgroupDriver] {
	names := map[bool]string{true: "systemd", false: "cgroupfs"}
	switch {
	case err == nil && config.GetLinux() != nil:
		return kvmcheck.Known(source, CgroupDriver{Name: names[config.GetLinux().GetCgroupDriver() == cri.CgroupDriver_SYSTEMD], Told: true})
	case err != nil && status.Code(err) != codes.Unimplemented:
		return kvmcheck.NotKnown[CgroupDriver](source, callError(r.Socket, "RuntimeConfig", err))
	case !r.Status.Known:
		return kvmcheck.Reading[CgroupDriver]{Source: r.Status.Source, Err: r.Status.Err}
	case r.Status.Value.Settings.SystemdCgroup == nil:
		return kvmcheck.NotKnown[CgroupDriver](source, errors.New("the runtime does not tell its cgroup driver"))
	default:
		return kvmcheck.Known(r.Status.Source, CgroupDriver{Name: names[*r.Status.Value.Settings.SystemdCgroup]})
	}
}

// callError is one short line about a call that failed.
func callError(socket, call string, err error) error {
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%s: no answer to %s within %v", socket, call, runtimeBudget)
	}
	return fmt.Errorf("%s: %s: %s", socket, call, clip(cmp.Or(status.Convert(err).Message(), err.Error())))
}

// clip bounds a text of the runtime's and makes it one line.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return strings.Join(strings.Fields(text), " ")
}
