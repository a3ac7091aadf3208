package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/virtnode/nodeagent/internal/node"
	"github.com/virtnode/nodeagent/test/cluster/manifests"
	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/prometheus"
)

// monitored finds the targets of the project's PodMonitor as the Prometheus
// operator's configuration does: running pods by namespace and labels, and of
// each the port of a name. Debian's Prometheus cannot ask a cluster itself.
func (c *Cluster) monitored(ctx context.Context, t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(hosttest.Root(), "deploy", "monitoring", "podmonitor.yaml"))
	must(t, err)
	var monitor struct {
		Metadata metav1.ObjectMeta
		Spec     struct {
			Selector            metav1.LabelSelector
			PodMetricsEndpoints []struct{ Port string }
		}
	}
	must(t, yaml.Unmarshal(text, &monitor))
	pods, err := c.Client.CoreV1().Pods(monitor.Metadata.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&monitor.Spec.Selector)})
	must(t, err)
	var targets []string
	for _, pod := range pods.Items {
		for _, port := range pod.Spec.Containers[0].Ports {
			if pod.Status.Phase == corev1.PodRunning && port.Name == monitor.Spec.PodMetricsEndpoints[0].Port {
				targets = append(targets, net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort))))
			}
		}
	}
	return targets
}

func (c *Cluster) scraped(ctx context.Context, t *testing.T) {
	t.Helper()
	server := prometheus.New(t, c.monitored(ctx, t)...)
	for _, expression := range []string{
		"count(up == 1) == 2", "count(virtnode_build_info) == 2",
		`count(virtnode_task_up{task="readiness"} == 1) == 2`, `count(virtnode_check_status{area="kubelet", check="registration", status="Ready"}) == 2`,
	} {
		if _, err := server.Wait(ctx, expression); err != nil {
			t.Fatal(err)
		}
	}
}

// bounded takes from the agent what this machine cannot give, such as
// SYS_RESOURCE in a container, and returns the capabilities that are left.
func bounded(objects []unstructured.Unstructured) (left uint64, err error) {
	bounds, err := capabilities("/proc/self/status", "CapBnd")
	if err != nil {
		return 0, err
	}
	bits := map[string]uint64{"DAC_OVERRIDE": 1 << 1, "SYS_PTRACE": 1 << 19, "SYS_RESOURCE": 1 << 24, "PERFMON": 1 << 38, "BPF": 1 << 39}
	for _, object := range objects {
		containers, found, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
		if err != nil || !found {
			continue
		}
		container := containers[0].(map[string]any)
		path := []string{"securityContext", "capabilities", "add"}
		names, _, err := unstructured.NestedStringSlice(container, path...)
		if err != nil {
			return 0, err
		}
		var given []string
		for _, name := range names {
			if bits[name] == 0 {
				return 0, fmt.Errorf("the overlay asks for the capability %s", name)
			}
			if bits[name]&bounds != 0 {
				given, left = append(given, name), left|bits[name]
			}
		}
		err = errors.Join(unstructured.SetNestedStringSlice(container, given, path...), unstructured.SetNestedSlice(object.Object, containers, "spec", "template", "spec", "containers"))
		if err != nil {
			return 0, err
		}
	}
	return left, nil
}

// capabilities reads a set of a process.
func capabilities(status, set string) (uint64, error) {
	data, err := os.ReadFile(status)
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(data), "\n"+set+":\t")
	text, _, _ := strings.Cut(after, "\n")
	held, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", status, err)
	}
	return held, nil
}

// telemetryOnly installs the overlay that asks for nothing but to look.
func (c *Cluster) telemetryOnly(ctx context.Context, t *testing.T) {
	t.Helper()
	objects, err := manifests.Kustomize(ctx, manifests.OverlayDir("telemetry-only"))
	must(t, err)
	held, err := bounded(objects)
	must(t, err)
	must(t, c.Apply(ctx, objects...))
	must(t, c.rolledOut(ctx, "localhost/nodeagent:devel"))
	agents, err := agentsHere()
	must(t, err)
	if want := slices.Repeat([]uint64{held}, len(c.Nodes)); !slices.Equal(agents, want) {
		t.Errorf("the agents have the capabilities %x, want %x", agents, want)
	}
	on := c.Nodes[0]
	vm, err := on.startVM("telemetry-only")
	must(t, err)
	defer vm()
	// This comes from /proc/PID/io, which of another user's process is for who
	// may trace it.
	read := regexp.MustCompile(`(?m)^virtnode_vm_process_read_bytes_total\{[^}]*"telemetry-only"[^}]*\} [0-9]`)
	must(t, hosttest.Poll(ctx, "the VM's numbers", func() (bool, error) {
		page, err := get(ctx, "http://"+on.Address+":9477/metrics")
		return read.Match(page), err
	}))
	for _, n := range c.Nodes {
		found, err := c.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		must(t, err)
		if len(ours(found)) > 0 {
			t.Errorf("%s has labels: %v", n.Name, ours(found))
		}
	}
	must(t, c.Delete(ctx, objects...))
	c.nothingLeft(ctx, t)
}

// agentsHere returns the effective capabilities of all agents of the cluster.
func agentsHere() ([]uint64, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var agents []uint64
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || string(comm) != "nodeagent\n" {
			continue // another one, or one that has just ended
		}
		held, err := capabilities(filepath.Join(filepath.Dir(name), "status"), "CapEff")
		if err != nil {
			return nil, err
		}
		agents = append(agents, held)
	}
	return agents, nil
}

// startVM starts a QEMU on the node, as a user who is not root, that waits to be
// told to run.
func (n *Node) startVM(name string) (stop func(), err error) {
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(n.pid), "-m", "-p", "-n", "-i", "-w",
		"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL",
		"qemu-system-x86_64", "-name", "guest="+name+",debug-threads=on", "-uuid", "8f5a1d0e-2c4b-4f6e-9a3d-0b1c2d3e4f50", "-S",
		"-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-display", "none")
	ended, err := hosttest.StartTethered(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start a VM on %s: %w", n.Name, err)
	}
	return func() { _, _ = cmd.Process.Kill(), <-ended }, nil
}

// hasFeatures waits until the node has the agent's file for Node Feature Discovery.
func (n *Node) hasFeatures(ctx context.Context) error {
	file := filepath.Join("/proc", strconv.Itoa(n.pid), "root/etc/kubernetes/node-feature-discovery/features.d", node.FeatureFileName)
	return hosttest.Poll(ctx, "the features of "+n.Name, func() (bool, error) {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			return false, nil
		}
		return strings.Contains(string(text), "\nvirtnode.io/numa.nodes="), err
	})
}
