package sriov_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

const (
	// stateEnv names a folder that outlives a reboot.
	stateEnv = "NODEAGENT_SRIOV_STATE"
	// sharedEnv says that the PF and its VFs are in one IOMMU group.
	sharedEnv = "NODEAGENT_SRIOV_SHARED"
)

// TestTrafficOnTheKernel sends packets between VFs: those of one VLAN hear each
// other, those of two do not.
func TestTrafficOnTheKernel(t *testing.T) {
	b := newKernel(t)
	a := newAgent(t, b)
	spec := sriov.Spec{PF: b.pf(), NumVFs: 3, Pools: []sriov.Pool{
		{Name: "red", VFs: []int{0, 1}, Attributes: sriov.Attributes{VLAN: new(100), QoS: new(0)}},
		{Name: "blue", VFs: []int{2}, Attributes: sriov.Attributes{VLAN: new(200), QoS: new(0)}},
	}}
	a.apply(t, reconcile.Kept, spec)
	back := spread(t, b)
	if !hears(0, 1, 30) || !hears(1, 0, 30) {
		t.Error("VFs of one VLAN do not hear each other")
	}
	if hears(0, 2, 5) || hears(2, 1, 5) {
		t.Error("VFs of two VLANs hear each other")
	}
	back()
	spec.Pools[0].VFs, spec.Pools[1].VFs = []int{0, 2}, []int{1}
	a.apply(t, reconcile.Kept, spec)
	back = spread(t, b)
	if !hears(0, 2, 30) || hears(0, 1, 5) {
		t.Error("traffic does not follow the pools")
	}
	back()
}

// spread gives each of three VFs a namespace and an address.
func spread(t *testing.T, b kernel) (back func()) {
	t.Helper()
	for index := range 3 {
		name, netdev := fmt.Sprint("vf", index), vfOf(t, b, index).Netdevs[0]
		ip(t, "netns", "add", name)
		ip(t, "link", "set", netdev, "netns", name)
		ip(t, "-n", name, "addr", "add", fmt.Sprintf("10.9.0.%d/24", 10+index), "dev", netdev)
		ip(t, "-n", name, "link", "set", netdev, "up")
	}
	return func() {
		for index := range 3 {
			ip(t, "netns", "del", fmt.Sprint("vf", index))
		}
		for index := range 3 {
			await(t, "the interface is back", func() bool { return len(vfOf(t, b, index).Netdevs) > 0 })
		}
	}
}

// hears sends one VF's ping to another, so many times. Links take a moment to come up.
func hears(from, to, times int) bool {
	for range times {
		ping := exec.Command("/usr/sbin/ip", "netns", "exec", fmt.Sprint("vf", from), "ping", "-c", "1", "-W", "1", fmt.Sprintf("10.9.0.%d", 10+to))
		if ping.Run() == nil {
			return true
		}
	}
	return false
}

// TestSharedGroupOnTheKernel wants that VFs that are not isolated are not given
// to VMs, whether they are there already or not.
func TestSharedGroupOnTheKernel(t *testing.T) {
	if os.Getenv(sharedEnv) == "" {
		t.Skipf("%s is not set", sharedEnv)
	}
	b := newKernel(t)
	a := newAgent(t, b)
	before := dump(t, b)
	outcome := a.apply(t, reconcile.Reverted, example(b))
	if !strings.Contains(outcome.Cause, "guard isolation") || !strings.Contains(outcome.Cause, "with "+b.pf()) {
		t.Errorf("got %s", outcome.Cause)
	}
	wantDump(t, b, before)
	bare := sriov.Spec{PF: b.pf(), NumVFs: 7}
	a.apply(t, reconcile.Kept, bare)
	plan := a.plan(t, example(b))
	if len(plan.Refusals) != 4 || plan.Refusals[0].Guard != "isolation" {
		t.Errorf("got %v", plan.Refusals)
	}
	tenant := example(b)
	tenant.Pools = tenant.Pools[1:]
	a.apply(t, reconcile.Kept, tenant) // the host may have them
}

// TestRebootOnTheKernel is run twice, with a reboot between: what a policy has
// made is gone then, and made again.
func TestRebootOnTheKernel(t *testing.T) {
	dir := os.Getenv(stateEnv)
	if dir == "" {
		t.Skipf("%s is not set", stateEnv)
	}
	b := newKernel(t)
	a := &agent{bed: b, dir: dir}
	kept, err := reconcile.ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if state := observe(t, b.host()); state.PFs[0].NumVFs != 0 {
		t.Fatalf("there are %d VFs", state.PFs[0].NumVFs)
	}
	a.apply(t, reconcile.Kept, example(b))
	a.apply(t, reconcile.Converged, example(b))
	if len(kept.Originals) == 0 {
		t.Log("before the reboot")
		return
	}
	t.Log("after the reboot")
	a.apply(t, reconcile.Kept)
	a.apply(t, reconcile.Converged)
	if kept, err = reconcile.ReadState(dir); err != nil || len(kept.Originals) > 0 {
		t.Errorf("left: %v, %v", kept.Originals, err)
	}
}

// recorder notes writes, and replays them without anything around them.
type recorder struct {
	sriov.Links
	sysfs  sriov.Sysfs
	writes []func(context.Context) error
}

func (r *recorder) do(ctx context.Context, write func(context.Context) error) error {
	r.writes = append(r.writes, write)
	return write(ctx)
}

func (r *recorder) Write(ctx context.Context, name, value string) error {
	return r.do(ctx, func(ctx context.Context) error { return r.sysfs.Write(ctx, name, value) })
}

func (r *recorder) SetVF(ctx context.Context, pf string, index int, change sriov.Attributes) error {
	return r.do(ctx, func(ctx context.Context) error { return r.Links.SetVF(ctx, pf, index, change) })
}

// BenchmarkApplyOnTheKernel compares the apply of seven VFs with attributes and
// drivers with the same writes made without looking, in turns.
func BenchmarkApplyOnTheKernel(b *testing.B) {
	bed := newKernel(b)
	host := bed.host()
	spec := example(bed)
	spec.Pools[1].MTU = 0                    // the interface's name is not known before
	spec.Pools[1].Attributes.MaxTxRate = nil // waits for the link, which bare writes would not
	clean := func() {
		if err := host.Sysfs.Write(b.Context(), bed.device()+"/sriov_numvfs", "0"); err != nil {
			b.Fatal(err)
		}
	}
	apply := func(host sriov.Host) time.Duration {
		a := &agent{bed: bed, dir: b.TempDir()}
		plan, err := a.replan(b.Context(), []sriov.Spec{spec})
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		outcome, err := a.loop([]sriov.Spec{spec}, host).Apply(b.Context(), reconcile.Request{}, plan)
		if err != nil || outcome.Result != reconcile.Kept {
			b.Fatal(outcome, err)
		}
		return time.Since(begun)
	}
	notes := &recorder{Links: host.Links, sysfs: host.Sysfs}
	recorded := host
	recorded.Links, recorded.Sysfs = notes, notes
	apply(recorded)
	clean()
	writes := slices.Clone(notes.writes)
	var bare, agents time.Duration
	for b.Loop() {
		begun := time.Now()
		for _, write := range writes {
			if err := write(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		bare += time.Since(begun)
		clean()
		agents += apply(host)
		clean()
	}
	b.ReportMetric(float64(len(writes)), "writes")
	b.ReportMetric(bare.Seconds()/float64(b.N), "bare-s")
	b.ReportMetric(agents.Seconds()/float64(b.N), "apply-s")
	b.ReportMetric(float64(agents)/float64(bare), "ratio")
}
