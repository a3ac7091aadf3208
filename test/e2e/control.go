package e2e

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// Where the control plane is in the cluster's network.
const (
	gateway   = "10.199.0.1"
	serverURL = "https://" + gateway + ":6443"
	serviceIP = "10.96.0.1" // of the service kubernetes
)

// startTimeout is generous: a quiet machine needs half a minute.
const startTimeout = 5 * time.Minute

// Cluster is a running cluster.
type Cluster struct {
	Config     *rest.Config // an administrator's
	Client     kubernetes.Interface
	Kubeconfig string
	Nodes      []*Node

	dir  string
	keys *authority
}

// startCluster builds the cluster in the namespaces that this process is in.
func startCluster(ctx context.Context, images []string, nodes ...string) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{dir: os.Getenv(insideEnv)}
	for _, dir := range []string{"keys", "log", "etcd"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return nil, fmt.Errorf("lay out the cluster: %w", err)
		}
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "br0", "type", "bridge"},
		{"address", "add", gateway + "/24", "dev", "br0"},
		{"link", "set", "br0", "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return nil, err
		}
	}
	if err := c.startControlPlane(ctx); err != nil {
		return nil, errors.Join(err, errors.New(c.lastWords()))
	}
	for i, name := range nodes {
		node, err := c.startNode(ctx, name, fmt.Sprintf("10.199.0.%d", 11+i), images)
		if err != nil {
			return nil, errors.Join(err, errors.New(c.lastWords()))
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c, nil
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.makeKeys(); err != nil {
		return err
	}
	k := c.keys.path
	const store = "http://127.0.0.1:2379"
	for _, program := range [][]string{
		{"etcd", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", "http://127.0.0.1:2380"},
		{
			"kube-apiserver", "--etcd-servers", store, "--secure-port=6443", "--advertise-address", gateway,
			"--service-cluster-ip-range=10.96.0.0/16", "--client-ca-file", k("ca.crt"), "--tls-cert-file", k("apiserver.crt"), "--tls-private-key-file", k("apiserver.key"),
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file", k("sa.pub"), "--service-account-signing-key-file", k("sa.key"),
			"--kubelet-client-certificate", k("kubelet-client.crt"), "--kubelet-client-key", k("kubelet-client.key"), "--kubelet-preferred-address-types=InternalIP",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		},
	} {
		if err := c.start(program[0], program[1:]...); err != nil {
			return err
		}
	}
	err := hosttest.Poll(ctx, "the API server", func() (bool, error) {
		_, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	manager, scheduler := k("manager.kubeconfig"), k("scheduler.kubeconfig")
	for _, program := range [][]string{
		{
			"kube-controller-manager", "--kubeconfig", manager, "--authentication-kubeconfig", manager, "--authorization-kubeconfig", manager,
			"--leader-elect=false", "--use-service-account-credentials=true", "--service-account-private-key-file", k("sa.key"), "--root-ca-file", k("ca.crt"),
		},
		{"kube-scheduler", "--kubeconfig", scheduler, "--authentication-kubeconfig", scheduler, "--authorization-kubeconfig", scheduler, "--leader-elect=false"},
	} {
		if err := c.start(program[0], program[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// makeKeys makes the certificates of the control plane, and its clients.
func (c *Cluster) makeKeys() error {
	var err error
	if c.keys, err = newAuthority(c.path("keys")); err != nil {
		return err
	}
	server := []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(gateway), net.ParseIP(serviceIP)}
	if err := c.keys.sign("apiserver", pkix.Name{CommonName: "kube-apiserver"}, server...); err != nil {
		return err
	}
	if err := c.keys.sign("kubelet-client", pkix.Name{CommonName: "kubelet-client", Organization: []string{"system:masters"}}); err != nil {
		return err
	}
	for name, user := range map[string]string{"manager": "system:kube-controller-manager", "scheduler": "system:kube-scheduler"} {
		if _, err := c.keys.kubeconfig(name, user); err != nil {
			return err
		}
	}
	if c.Kubeconfig, err = c.keys.kubeconfig("admin", "admin", "system:masters"); err != nil {
		return err
	}
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	// Tests wait by asking often.
	c.Config.QPS, c.Config.Burst = 200, 400
	c.Client, err = kubernetes.NewForConfig(c.Config)
	return err
}

// start starts a component of the cluster. It ends with this process.
func (c *Cluster) start(name string, args ...string) error {
	program, err := cluster.Binary(name)
	if err != nil {
		return err
	}
	return c.startLogged(name, exec.Command(program, args...))
}

func (c *Cluster) startLogged(name string, cmd *exec.Cmd) error {
	log, err := os.Create(c.path("log", name+".log"))
	if err != nil {
		return fmt.Errorf("make a log: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _, _ = log.Close(), cmd.Wait() }()
	return nil
}

// lastWords are the ends of all logs.
func (c *Cluster) lastWords() string {
	var words strings.Builder
	files, _ := filepath.Glob(c.path("log", "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&words, "\n== %s\n%s\n", filepath.Base(file), strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
	return words.String()
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
