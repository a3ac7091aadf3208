package kvmcheck_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// proofless is a host whose proof of KVM costs nothing.
type proofless struct{ kvmcheck.Devices }

func (proofless) ProveKVM(context.Context) kvmcheck.Proof { return kvmcheck.Proof{} }

// BenchmarkCheck measures a whole re-probe without the proof, of this machine
// and of the largest recorded one.
func BenchmarkCheck(b *testing.B) {
	for name, path := range map[string]string{
		"this machine":  "/",
		"vm-numa-sriov": filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz"),
	} {
		b.Run(name, func(b *testing.B) {
			_, host := hosttest.OpenHost(b, path)
			host.Devices = proofless{host.Devices}
			before := cpuTime(b)
			for b.Loop() {
				kvmcheck.NewReport(kvmcheck.Collect(b.Context(), host), kvmcheck.Profile{}, "bench", hosttest.Time())
			}
			spent := cpuTime(b) - before
			b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// TestReprobeIsCheap holds what the agent costs every node at every interval.
func TestReprobeIsCheap(t *testing.T) {
	_, host := hosttest.OpenHost(t, "/")
	host.Devices = proofless{host.Devices}
	least := time.Hour
	for range 5 {
		before := cpuTime(t)
		kvmcheck.NewReport(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{}, "test", hosttest.Time())
		least = min(least, cpuTime(t)-before)
	}
	if least > 50*time.Millisecond {
		t.Errorf("a check without the proof took %v of CPU, want less than 50 ms", least)
	}
}

// cpuTime is what this process has used of the CPU.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
