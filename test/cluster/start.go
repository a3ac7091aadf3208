package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/virtnode/nodeagent/test/hosttest"
)

// folderPattern names the folder of a running control plane; the tether
// removes only folders with this name.
const folderPattern = "nodeagent-cluster-*"

// A ControlPlane is a running API server with its store, both on loopback
// ports of their own. It has no controllers, no scheduler and no kubelets.
type ControlPlane struct {
	env    *envtest.Environment
	folder string // everything of this run, until Stop
	logs   []*os.File
}

// Start starts a control plane and waits until it serves. The API server has
// these flags beside its own, each as NAME=VALUE.
func Start(flags ...string) (*ControlPlane, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	a, err := findAssets()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", folderPattern)
	if err != nil {
		return nil, fmt.Errorf("make a folder for the control plane: %w", err)
	}
	p := &ControlPlane{folder: folder}
	if err := p.start(a, flags); err != nil {
		// What the servers said is gone after Stop.
		err = fmt.Errorf("start the control plane: %w%s", err, p.lastWords())
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *ControlPlane) start(a assets, flags []string) error {
	if err := p.layOut(a); err != nil {
		return err
	}
	existing := false
	p.env = &envtest.Environment{
		// Said here because the environment could otherwise point the
		// tests at somebody's living cluster.
		UseExistingCluster:       &existing,
		BinaryAssetsDirectory:    p.path("bin"),
		ControlPlaneStartTimeout: 120 * time.Second,
		ControlPlaneStopTimeout:  30 * time.Second,
	}
	server := p.env.ControlPlane.GetAPIServer()
	p.env.ControlPlane.Etcd = &envtest.Etcd{}
	etcd := p.env.ControlPlane.Etcd
	// Paths are given in full: KUBEBUILDER_ASSETS outranks the folder above.
	server.Path, etcd.Path = p.path("bin", "kube-apiserver"), p.path("bin", "etcd")
	server.CertDir, etcd.DataDir = p.path("certs"), p.path("data")
	// A machine without a default route has no address to advertise, and
	// nobody looks for the service that would point there.
	server.Configure().Set("advertise-address", "127.0.0.1").Set("endpoint-reconciler-type", "none")
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		server.Configure().Set(name, value)
	}

	serverLog, err := p.log("kube-apiserver")
	if err != nil {
		return err
	}
	etcdLog, err := p.log("etcd")
	if err != nil {
		return err
	}
	server.Out, server.Err = serverLog, serverLog
	etcd.Out, etcd.Err = etcdLog, etcdLog
	if _, err := p.env.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(p.Kubeconfig(), p.env.KubeConfig, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}

// layOut makes the folders of the run. bin holds one link to the tether for
// every program; the tether finds the program itself below assets.
func (p *ControlPlane) layOut(a assets) error {
	for _, dir := range []string{"bin", "certs", "data"} {
		if err := os.Mkdir(p.path(dir), 0o700); err != nil {
			return fmt.Errorf("lay out the control plane: %w", err)
		}
	}
	links := map[string]string{p.path("assets"): a.plane.dir}
	for _, c := range a.plane.components {
		links[p.path("bin", c.name)] = filepath.Join(a.tether.dir, "tether")
	}
	for link, target := range links {
		if err := os.Symlink(target, link); err != nil {
			return fmt.Errorf("lay out the control plane: %w", err)
		}
	}
	return nil
}

// log makes the file that takes what the program prints.
func (p *ControlPlane) log(name string) (*os.File, error) {
	file, err := os.Create(p.path(name + ".log"))
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	p.logs = append(p.logs, file)
	return file, nil
}

// lastWords returns the ends of the logs.
func (p *ControlPlane) lastWords() string {
	var words bytes.Buffer
	for _, file := range p.logs {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			text = []byte(err.Error())
		}
		const most = 2000
		text = text[max(0, len(text)-most):]
		fmt.Fprintf(&words, "\n--- end of %s\n%s", filepath.Base(file.Name()), bytes.TrimSpace(text))
	}
	return words.String()
}

func (p *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{p.folder}, elem...)...)
}

// Config returns the connection of an administrator; it is the caller's own.
func (p *ControlPlane) Config() *rest.Config { return rest.CopyConfig(p.env.Config) }

// Kubeconfig returns the path of the same connection as a file, which lives
// until Stop.
func (p *ControlPlane) Kubeconfig() string { return p.path("kubeconfig") }

// KillServer ends the API server as a crash does: when told to end, it waits for
// those who watch it. Its store goes on.
func (p *ControlPlane) KillServer(ctx context.Context) error {
	tether, err := processOf(p.path("bin", "kube-apiserver"))
	if err != nil {
		return err
	}
	if err := syscall.Kill(tether, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the API server: %w", err)
	}
	return hosttest.Poll(ctx, "the end of the API server", func() (bool, error) {
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(p.env.Config.Host, "https://"))
		if err != nil {
			return true, nil //nolint:nilerr // nobody listens any more
		}
		return false, connection.Close()
	})
}

// processOf finds the process that was started as a program.
func processOf(program string) (int, error) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", program, err)
	}
	for _, line := range lines {
		text, err := os.ReadFile(line)
		if err == nil && strings.HasPrefix(string(text), program+"\x00") {
			return strconv.Atoi(filepath.Base(filepath.Dir(line)))
		}
	}
	return 0, fmt.Errorf("find %s: it does not run", program)
}

// StartServer starts the API server again, with its address, its keys and its
// store, and waits until it serves.
func (p *ControlPlane) StartServer() error {
	if err := p.env.ControlPlane.GetAPIServer().Start(); err != nil {
		return fmt.Errorf("start the API server again: %w%s", err, p.lastWords())
	}
	return nil
}

// Stop ends the control plane and removes all it made.
func (p *ControlPlane) Stop() error {
	var errs []error
	if p.env != nil {
		errs = append(errs, p.env.Stop())
	}
	for _, file := range p.logs {
		errs = append(errs, file.Close())
	}
	errs = append(errs, os.RemoveAll(p.folder))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the control plane: %w", err)
	}
	return nil
}
