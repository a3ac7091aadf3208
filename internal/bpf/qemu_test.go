package bpf

import (
	"testing"
	"time"

	"github.com/virtnode/nodeagent/test/hosttest"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// TestDelayOfRealVMs lets two QEMUs that never halt share a CPU.
func TestDelayOfRealVMs(t *testing.T) {
	hosttest.Need(t, hosttest.Libvirt, libvirt.Missing())
	p := loadAll(t, 4)
	host := libvirt.New(t, libvirt.Options{})
	names := []string{"busy1", "busy2"}
	var processes []Process
	for _, name := range names {
		if err := host.StartDomain(t.Context(), libvirt.Domain{Name: name, Workload: libvirt.Busy}); err != nil {
			t.Fatal(err)
		}
		pid, err := host.QEMUPID(name)
		if err != nil {
			t.Fatal(err)
		}
		processes = append(processes, Process{PID: pid})
		for tid := range schedstats(t, pid) {
			if err := pinThread(int(tid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// round lets both run for a while and says what they have when they stand.
	round := func() (histograms [2]Histogram, kernel [2]account) {
		for _, name := range names {
			if err := host.Resume(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, process := range processes {
			busy(t, p, process.PID)
		}
		for _, name := range names {
			if err := host.Hang(name); err != nil {
				t.Fatal(err)
			}
		}
		for i, process := range processes {
			kernel[i] = settled(t, p, process.PID)
			histograms[i] = delays(t, p, process.PID)
		}
		return histograms, kernel
	}
	track(t, p, processes...)
	before, kernelBefore := round()
	after, kernelAfter := round()
	for i, name := range names {
		wantDelays(t, before[i], after[i], kernelBefore[i], kernelAfter[i])
		t.Logf("%s: %d waits, %v", name, after[i].Count()-before[i].Count(), time.Duration(after[i].Sum-before[i].Sum))
	}
}
