package hosttest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// RequireEnv is a comma-separated list of tiers that must run: a test of a
// named tier fails, rather than skips, when what the tier needs is missing.
const RequireEnv = "NODEAGENT_TEST_REQUIRE"

// The tiers that need more than the Go toolchain.
const (
	// Libvirt needs root, libvirtd, QEMU, Prometheus and promtool.
	Libvirt = "libvirt"
	// VM needs QEMU 8 or later and the cached kernel.
	VM = "vm"
	// Cluster needs the cached kube-apiserver and etcd.
	Cluster = "cluster"
	// Runtime needs root, containerd and the CNI plugins.
	Runtime = "runtime"
	// BPF needs root and a kernel that tells its types.
	BPF = "bpf"
	// E2E needs root, the cached binaries of a whole cluster, containerd and
	// Prometheus.
	E2E = "e2e"
	// Netns needs root and iproute2.
	Netns = "netns"
)

// Need ends the test when missing says why the tier cannot run here: as a
// failure when RequireEnv names the tier, as a skip otherwise.
func Need(t testing.TB, tier string, missing error) {
	t.Helper()
	if missing == nil {
		return
	}
	if Required(tier) {
		t.Fatalf("tier %s is required by %s but cannot run: %v", tier, RequireEnv, missing)
	}
	t.Skipf("tier %s: %v", tier, missing)
}

// Required reports whether RequireEnv names the tier.
func Required(tier string) bool {
	return slices.Contains(strings.Split(os.Getenv(RequireEnv), ","), tier)
}
