package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/agent"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/internal/readiness"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/metrics"
	"github.com/virtnode/nodeagent/pkg/qemu"
)

// drainTimeout is how long the tasks have to end after SIGTERM.
const drainTimeout = 15 * time.Second

func newRun() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve metrics of this host's VMs and its readiness report",
		Long: `run finds the host's libvirt daemons and QEMU processes and serves, until SIGTERM:

  /metrics   Prometheus metrics of the VMs and of the agent itself
  /report    the check of the host, as JSON
  /readyz    whether all parts of the agent do their work; /healthz whether it answers

It needs no cluster and no configuration file. A libvirt daemon that is absent,
hangs, dies or comes back costs only its own VMs. The host is checked at every
interval, and at once when a module or device comes or goes. SIGHUP, or a changed file,
reloads the configuration; an invalid one is refused and the old one goes on.

In a cluster, which it knows by NODE_NAME and a service account or kubeconfig, it
publishes labels, conditions and a NodeVirtualization of its Node, and follows the
HostNetworks that select it. Elsewhere network.policies names files of them.`,
		Example: `  nodeagent run
  nodeagent run --web.listen-address 127.0.0.1:9477
  nodeagent run --libvirt-uri 'qemu+unix:///system?socket=/run/libvirt/virtqemud-sock'`,
		Args: cobra.NoArgs,
	}
	from := addSettings(cmd)
	from.addRoot()
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		data, err := from.read()
		if err != nil {
			return err
		}
		initial, err := from.parse(data)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), from, data, initial, cmd.ErrOrStderr())
	}
	return cmd
}

// daemon is the running agent: its tasks, and the configuration they have.
type daemon struct {
	from   *settings
	log    *slog.Logger
	level  *slog.LevelVar
	root   *hostfs.Root
	tasks  *agent.Supervisor
	server *metrics.Server
	loop   *readiness.Loop
	bpf    *programs
	vms    machines
	// profile is what the host is judged by, from the readiness task's start.
	profile atomic.Pointer[kvmcheck.Profile]
	watch   atomic.Pointer[watchedNetwork] // from the network task's start

	publishing atomic.Pointer[publishing] // nil: nothing yet
	networks   atomic.Pointer[networksTold]

	// Of the config task: the file's content that was tried last, and whether
	// it could not even be read.
	tried  []byte
	unread bool

	mu      sync.Mutex
	current config.Config
	reload  metrics.ConfigState
}

// serve runs the agent until ctx ends, and drains it.
func serve(ctx context.Context, from *settings, data []byte, initial config.Config, stderr io.Writer) (err error) {
	root, err := hostfs.Open(from.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if root.Recording() != nil {
		return fmt.Errorf("--root %s: a recording does not live; nodeagent check judges it", from.root)
	}
	level := new(slog.LevelVar)
	log := newLogger(stderr, initial.Log.Format, level)
	profile, err := profileOf(initial.Readiness)
	if err != nil {
		return err
	}
	d := &daemon{from: from, tried: data, log: log, level: level, root: root, tasks: agent.New(log), bpf: newPrograms(log)}
	defer d.bpf.want(false)
	if d.loop, err = d.newLoop(); err != nil {
		return err
	}
	d.server = metrics.NewServer(metrics.Options{
		Version:   version(),
		Readiness: d.readinessState,
		Network:   d.networkState,
		Publish:   d.publishState,
		Tasks:     d.taskStates,
		Programs:  d.bpf.states,
		Config:    d.configState,
		Report:    d.lastReport,
		Ready:     d.ready,
		Log:       log,
	})
	access, err := d.newAccess(initial)
	if err != nil {
		return err
	}
	collector, err := d.newCollector(initial)
	if err != nil {
		return err
	}
	custom, err := customLabels(initial.Kubernetes)
	if err != nil {
		return err
	}
	listener, err := listen(initial.Web.ListenAddress)
	if err != nil {
		return err
	}
	d.setConfig(initial)
	if err := loosenTimers(); err != nil {
		log.Debug("timers stay exact, which costs some CPU time", "err", err)
	}
	defer frugal()()
	d.server.SetAccess(access)
	d.bpf.want(initial.Telemetry.BPF)
	d.tasks.Start(agent.Task{Name: "config", Run: d.watchConfig})
	d.startNetwork(initial)
	d.startTelemetry(collector)
	d.startPublish(initial.Kubernetes, custom)
	d.startReadiness(initial, profile)
	d.startWeb(listener, initial.Web)
	log.Info("nodeagent started", "version", version(), "address", listener.Addr().String())

	started := time.AfterFunc(startUp, func() {
		if err := shedStartup(); err != nil {
			log.Warn("cannot give back memory that only the start needed", "err", err)
		}
	})
	defer started.Stop()
	defer notify(ctx, func() { d.tasks.Status() }, log)()
	<-ctx.Done()
	log.Info("nodeagent stops")
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	return d.tasks.Drain(last)
}

func (d *daemon) newCollector(c config.Config) (*qemu.Collector, error) {
	opt := collectorOptions(c.Telemetry)
	opt.Root, opt.Log, opt.Programs, opt.VFs = d.root, d.log, d.bpf, vfCounters{}
	return qemu.New(opt)
}

// collectorOptions are what a collector needs of the configuration.
func collectorOptions(c config.Telemetry) qemu.Options {
	opt := qemu.Options{
		URIs: c.LibvirtURIs, Kubelet: c.Kubelet,
		Budget: c.Budget, CallTimeout: c.CallTimeout, MaxAge: c.MaxAge,
		Groups: selectionOf(c).Reads(),
	}
	if len(c.KVMStats) > 0 {
		opt.KVMStats = c.KVMStats
	}
	return opt
}

// startTelemetry lets scrapes use a collector, in place of the one before it.
func (d *daemon) startTelemetry(collector *qemu.Collector) {
	running := d.vms.expect(collector)
	d.server.SetVMs(&d.vms)
	d.tasks.Start(agent.Task{Name: "telemetry", Run: func(ctx context.Context, ready func()) error {
		return collector.Run(ctx, func() { running(); ready() })
	}})
}

// selectionOf says which families a configuration wants.
func selectionOf(c config.Telemetry) metrics.Selection {
	return metrics.Selection{
		Groups: c.Groups, Compat: c.Compat, Node: nodeName(),
		Limits: metrics.Limits{PerVM: c.MaxSeriesPerVM, All: c.MaxSeries},
	}
}

// nodeName is the node's name in its cluster, as the DaemonSet says it; the
// host's own elsewhere.
func nodeName() string {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// newAccess checks the web configuration file, and makes who judges requests:
// nobody, if the cluster is not to be asked.
func (d *daemon) newAccess(c config.Config) (metrics.Access, error) {
	if err := metrics.CheckWebConfig(c.Web.ConfigFile); err != nil {
		return nil, err
	}
	if !c.Web.KubernetesAuth {
		return nil, nil
	}
	way, err := node.Config(c.Kubernetes.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("web.kubernetesAuth: %w", err)
	}
	access, err := node.NewAccess(way, d.log)
	if err != nil {
		return nil, err
	}
	return access.Judge, nil
}

// startWeb serves on a listener, in place of the web task before it. Without
// one, and after a failure, it listens itself.
func (d *daemon) startWeb(listener net.Listener, c config.Web) {
	address := c.ListenAddress
	if listener != nil {
		address = listener.Addr().String()
	}
	d.tasks.Start(agent.Task{Name: "web", Run: func(ctx context.Context, ready func()) error {
		if listener == nil {
			var err error
			if listener, err = listen(address); err != nil {
				return err
			}
		}
		serving := listener
		listener = nil
		ready()
		return d.server.ServeSecured(ctx, serving, c.ConfigFile)
	}})
}

// listen opens the address, or says in one line what to do.
func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the address is in use, perhaps by another nodeagent; choose one with --web.listen-address", address)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("listen on %s: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return listener, nil
}

func (d *daemon) taskStates() []metrics.TaskState {
	var states []metrics.TaskState
	for _, s := range d.tasks.Status() {
		states = append(states, metrics.TaskState{Name: s.Name, State: string(s.State), Err: s.Err, Restarts: s.Restarts})
	}
	return states
}

// ready reports whether all tasks are, with a line for each that is not.
func (d *daemon) ready() (bool, []string) {
	var lines []string
	for _, s := range d.tasks.Status() {
		switch {
		case s.State == agent.Ready:
		case s.Err != "":
			lines = append(lines, fmt.Sprintf("%s: %s: %s", s.Name, s.State, s.Err))
		default:
			lines = append(lines, fmt.Sprintf("%s: %s", s.Name, s.State))
		}
	}
	return len(lines) == 0, lines
}
