package e2e

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/virtnode/nodeagent/test/cluster"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// Node is a node of the cluster: namespaces, a container runtime, a kubelet.
type Node struct {
	Name    string
	Address string

	pid int // process 1 of its PID namespace, as seen from the cluster's
}

// joinScript puts the shell into the node's control groups, $1, and becomes
// the rest of its arguments.
const joinScript = `set -eu
group=$1
shift
for hierarchy in /sys/fs/cgroup/*/; do
	[ -w "$hierarchy/cgroup.procs" ] || continue
	mkdir -p "$hierarchy$group"
	case $hierarchy in
	*/cpuset/)
		for dir in "$hierarchy${group%/*}" "$hierarchy$group"; do
			cat "$hierarchy/cpuset.cpus" >"$dir/cpuset.cpus"
			cat "$hierarchy/cpuset.mems" >"$dir/cpuset.mems"
		done ;;
	esac
	echo $$ >"$hierarchy$group/cgroup.procs"
done
exec "$@"
`

// nodeScript is process 1 of a node.
//
//go:embed node.sh
var nodeScript string

// startNode starts a node and waits until it is ready.
func (c *Cluster) startNode(ctx context.Context, name, address string, images []string) (*Node, error) {
	n := &Node{Name: name, Address: address}
	dir := c.path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lay out the node: %w", err)
	}
	kubeconfig, err := c.keys.kubeconfig("node-"+name, "system:node:"+name, "system:nodes")
	if err != nil {
		return nil, err
	}
	if err := c.writeNodeFiles(dir); err != nil {
		return nil, err
	}
	kubelet, err := cluster.Binary("kubelet")
	if err != nil {
		return nil, err
	}
	multus, err := cluster.Binary("multus")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", joinScript, "sh", filepath.Join(groupName, name),
		"unshare", "--cgroup", "--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "--propagation", "private",
		"sh", "-c", nodeScript, "sh")
	cmd.Env = append(os.Environ(), "NAME="+name, "ADDRESS="+address, "DIR="+dir, "LOG="+c.path("log"), "GATEWAY="+gateway, "SERVICE="+serviceIP,
		"KUBELET="+kubelet, "KUBECONFIG="+kubeconfig, "MULTUS="+multus, "MULTUS_KUBECONFIG="+c.Kubeconfig, "IMAGES="+strings.Join(images, " "))
	if err := c.startLogged(name, cmd); err != nil {
		return nil, err
	}
	if n.pid, err = childOf(ctx, cmd.Process.Pid); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(n.pid)
	for _, args := range [][]string{
		{"link", "add", "u-" + name, "type", "veth", "peer", "name", "eth0", "netns", pid},
		{"link", "set", "u-" + name, "master", "br0", "up"},
		{"link", "add", "s-" + name, "type", "veth", "peer", "name", "ens1f0", "netns", pid},
		{"link", "set", "s-" + name, "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return nil, err
		}
	}
	return n, hosttest.Poll(ctx, "node "+name, func() (bool, error) {
		node, err := c.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, nil //nolint:nilerr // it does not exist yet
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}

// childOf waits for the one child of a process: unshare makes it when all
// namespaces are there.
func childOf(ctx context.Context, pid int) (int, error) {
	var child int
	err := hosttest.Poll(ctx, "the node's first process", func() (bool, error) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return false, fmt.Errorf("the node has ended: %w", err)
		}
		// The shell that joins the groups has children too, but becomes
		// unshare only then.
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil || strings.TrimSpace(string(comm)) != "unshare" {
			return false, err
		}
		fields := strings.Fields(string(text))
		if len(fields) != 1 {
			return false, nil
		}
		child, err = strconv.Atoi(fields[0])
		return true, err
	})
	return child, err
}

const containerdConfig = `version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:devel"
  restrict_oom_score_adj = true
`

// kubeletConfig fits a machine that is nearly full and has control groups of
// version 1.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %s}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
maxOpenFiles: 20000
clusterDomain: cluster.local
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
nodeStatusReportFrequency: 10s
syncFrequency: 5s
`

const podNetwork = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`

func (c *Cluster) writeNodeFiles(dir string) error {
	var errs []error
	for name, text := range map[string]string{
		"containerd.toml": containerdConfig,
		"kubelet.yaml":    fmt.Sprintf(kubeletConfig, c.keys.path("ca.crt")),
		"multus.conf": `{"cniVersion": "1.0.0", "name": "multus", "type": "multus", "capabilities": {"portMappings": true},
  "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig", "delegates": [` + podNetwork + `]}`,
	} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return errors.Join(errs...)
}
