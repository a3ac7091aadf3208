package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/config"
	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/internal/network"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/deviceplugin"
	"github.com/virtnode/nodeagent/pkg/hostnet"
	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// networkFlags are what the commands about the network have in common.
type networkFlags struct {
	files  []string
	labels map[string]string
	dir    string
	output string
}

func (f *networkFlags) add(cmd *cobra.Command, policies bool) {
	flags := cmd.Flags()
	if policies {
		flags.StringArrayVarP(&f.files, "file", "f", nil, "file of HostNetwork policies, repeatable; - is standard input")
		flags.StringToStringVar(&f.labels, "node-label", nil, "label of this node, KEY=VALUE, that a policy's nodeSelector may ask for")
	}
	flags.StringVar(&f.dir, "state-dir", config.Default().Network.StateDirectory, "where the journal and what was there before are kept")
}

// addFormat adds the flag --output, of text or json.
func (f *networkFlags) addFormat(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "how to print: text or json")
	complete(cmd, "output", []string{"text", "json"})
}

func (f *networkFlags) checkFormat() error {
	if f.output != "text" && f.output != "json" {
		return fmt.Errorf("--output %q: want text or json", f.output)
	}
	return nil
}

// policies reads all files. The same policy in two of them is an error.
func (f *networkFlags) policies(stdin io.Reader) ([]v1alpha1.HostNetwork, error) {
	return readPolicies(f.files, stdin)
}

func readPolicies(files []string, stdin io.Reader) ([]v1alpha1.HostNetwork, error) {
	var all []v1alpha1.HostNetwork
	from := make(map[string]string)
	for _, file := range files {
		var data []byte
		var err error
		if file == "-" {
			data, err = io.ReadAll(stdin)
		} else {
			data, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		policies, err := config.ParsePolicies(data)
		if err != nil {
			return nil, (&settings{file: file}).nameFile(err)
		}
		for _, policy := range policies {
			if other, again := from[policy.Name]; again {
				return nil, fmt.Errorf("%s: policy %s is in %s already", file, policy.Name, other)
			}
			from[policy.Name] = file
		}
		all = append(all, policies...)
	}
	return all, nil
}

// openNetwork returns the network of this host. Close gives it back.
func openNetwork(root *hostfs.Root, dir string, labels map[string]string, log *slog.Logger) (n *network.Network, closeIt func() error, err error) {
	kernel, err := hostnet.OpenNetlink("/proc/self/ns/net")
	if err != nil {
		return nil, nil, err
	}
	describe := func(pid int) string { return qemu.Describe(root, pid) }
	links := &hostnet.Host{Kernel: kernel, Root: root, Reach: mustReach(), Away: hostnet.OtherSpaces(root, describe)}
	all := map[string]string{"kubernetes.io/hostname": hostname()}
	maps.Copy(all, labels)
	return &network.Network{
		Dir:        dir,
		Links:      links,
		VFs:        sriov.Host{Root: root, Sysfs: root, Links: hostnet.VFLinks{Host: links, Netlink: kernel}, Pods: deviceplugin.Pods{Root: root}, Describe: describe},
		Neighbours: kernel,
		Labels:     all,
		APIServer:  apiServer(),
		Now:        time.Now,
		Log:        log,
	}, kernel.Close, nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return strings.ToLower(name)
}

// apiServer is where a pod finds the API server.
func apiServer() string {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// mustReach lists addresses that are the node's way to others: the API
// server's, the node's own, and the one an operator has come from.
func mustReach() []netip.Addr {
	var all []netip.Addr
	client, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	for _, text := range []string{os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("NODE_IP"), client} {
		if address, err := netip.ParseAddr(text); err == nil && !address.IsLoopback() {
			all = append(all, address.WithZone(""))
		}
	}
	return all
}

// withNetwork opens this host's network for one command.
func (f *networkFlags) withNetwork(cmd *cobra.Command, use func(ctx context.Context, n *network.Network) error) (err error) {
	root, err := hostfs.Open("/")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	log := newLogger(cmd.ErrOrStderr(), "auto", new(slog.LevelVar))
	n, closeIt, err := openNetwork(root, f.dir, f.labels, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	return use(cmd.Context(), n)
}

// operator says who has typed a command, for the audit trail.
func operator(command string) string {
	user := fmt.Sprintf("uid %d", os.Getuid())
	if name := os.Getenv("SUDO_USER"); name != "" {
		user = name + " as " + user
	}
	return fmt.Sprintf("nodeagent %s, by %s, pid %d", command, user, os.Getpid())
}

// needsRoot turns a refusal of the kernel into what to do.
func needsRoot(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: run it as root, with CAP_NET_ADMIN", err)
	}
	return err
}

// policyFiles expands the configuration's patterns.
func policyFiles(patterns []string) ([]string, error) {
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", pattern, err)
		}
		if len(found) == 0 && !strings.ContainsAny(pattern, "*?[") {
			found = []string{pattern} // which says that it is missing
		}
		files = append(files, found...)
	}
	return files, nil
}

// writeOutcome prints how an attempt has ended, and returns its exit status.
func writeOutcome(w io.Writer, output string, outcome reconcile.Outcome) error {
	if output == "json" {
		if err := writeData(w, output, outcome); err != nil {
			return err
		}
	} else if err := printOutcome(w, outcome); err != nil {
		return err
	}
	if outcome.Result == reconcile.Kept || outcome.Result == reconcile.Converged {
		return nil
	}
	return exitError(exitFailed)
}

func printOutcome(w io.Writer, outcome reconcile.Outcome) error {
	var text strings.Builder
	switch outcome.Result {
	case reconcile.Converged:
		text.WriteString("converged: nothing to change\n")
	case reconcile.Kept:
		fmt.Fprintf(&text, "applied: %d steps (transaction %s)\n", len(outcome.Steps), outcome.Transaction)
	case reconcile.Reverted:
		fmt.Fprintf(&text, "RESTORED: everything is as it was before (transaction %s)\n  because %s\n", outcome.Transaction, outcome.Cause)
	default:
		fmt.Fprintf(&text, "STUCK: not everything could be undone (transaction %s)\n  because %s\n", outcome.Transaction, outcome.Cause)
		for _, left := range outcome.Left {
			fmt.Fprintf(&text, "  left: %s\n", left)
		}
		text.WriteString("  nodeagent restore tries it again\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
