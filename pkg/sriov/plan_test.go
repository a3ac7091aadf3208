package sriov_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/internal/reconcile"
	"github.com/virtnode/nodeagent/pkg/sriov"
)

// bareState is a host with PFs of as many VFs each, on their kernel driver.
func bareState(pfs, vfs int) sriov.State {
	state := sriov.State{Drivers: []string{"igb", "igbvf", "vfio-pci"}}
	for p := range pfs {
		pf := sriov.PFState{Autoprobe: true, PF: sriov.PF{
			Address: fmt.Sprintf("0000:%02x:00.0", p+1), Driver: "igb", TotalVFs: 256, NumVFs: vfs, Netdevs: []string{fmt.Sprint("eth", p)},
		}}
		for v := range vfs {
			pf.VFs = append(pf.VFs, sriov.VFState{
				VF:         sriov.VF{Index: v, Address: fmt.Sprintf("0000:%02x:%02x.%x", p+1, 1+v/8, v%8), Driver: "igbvf", IOMMUGroup: new(1000*p + v), Netdevs: []string{fmt.Sprintf("eth%dv%d", p, v)}},
				Attributes: sriov.Attributes{MAC: "02:00:00:00:00:01", VLAN: new(0), QoS: new(0), MinTxRate: new(0), MaxTxRate: new(0), SpoofCheck: new(true), Trust: new(false), LinkState: "auto"},
				MTU:        1500,
			})
		}
		state.PFs = append(state.PFs, pf)
	}
	return state
}

// TestPlanReadsAsItIsCarriedOut is the dry run of the policy in the
// documentation.
func TestPlanReadsAsItIsCarriedOut(t *testing.T) {
	state := bareState(1, 0)
	state.PFs[0].TotalVFs = 7
	spec, err := sriov.NewSpec("storage", "0000:01:00.0", v1alpha1.SRIOV{NumVFs: 3, Pools: []v1alpha1.Pool{
		{Name: "fast", VFs: "0", Driver: "vfio-pci", Trust: new(true), SpoofCheck: new(false)},
		{Name: "tenant", VFs: "1", VLAN: 100, QoS: 3, MaxTxRate: new(1000)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	plan := sriov.Plan([]sriov.Spec{spec}, state, nil)
	if err := plan.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := `  1  keep drivers off new VFs of 0000:01:00.0 (eth0)
  2  create 3 VFs on 0000:01:00.0 (eth0)
  3  set VF 0 of 0000:01:00.0 (eth0): vlan 0, spoofCheck off, trust on
  4  set VF 1 of 0000:01:00.0 (eth0): vlan 100 qos 3, maxTxRate 1000
  5  bind VF 0 of 0000:01:00.0 (eth0) to vfio-pci
  6  let drivers find new VFs of 0000:01:00.0 (eth0)
  7  let the kernel choose the driver of VF 1 of 0000:01:00.0 (eth0)
  8  let the kernel choose the driver of VF 2 of 0000:01:00.0 (eth0)
plan ` + plan.Hash() + "\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// TestPlanRefuses has each guard at work when the plan is made.
func TestPlanRefuses(t *testing.T) {
	grow := sriov.Spec{PF: "0000:01:00.0", Policy: "p", NumVFs: 7}
	vfio := sriov.Spec{PF: "0000:01:00.0", Policy: "p", NumVFs: 4, Pools: []sriov.Pool{{Name: "a", VFs: []int{1}, Driver: "vfio-pci"}}}
	user := []sriov.User{{Source: "/proc/7/fd/3", Detail: "process 7 holds it"}}
	for name, test := range map[string]struct {
		given func(*sriov.State)
		spec  sriov.Spec
		want  string
	}{
		"a PF that is not there":      {func(s *sriov.State) { s.PFs = nil }, grow, "guard capability: 0000:01:00.0: no PF with SR-IOV was found there"},
		"more VFs than the card has":  {func(s *sriov.State) { s.PFs[0].TotalVFs = 6 }, grow, "it can have 6 VFs, 7 are wanted"},
		"a PF without driver":         {func(s *sriov.State) { s.PFs[0].Driver = "" }, grow, "no driver is bound"},
		"a PF in another namespace":   {func(s *sriov.State) { s.PFs[0].Netdevs = nil }, grow, "its interface is not on this host"},
		"a PF that the node hangs on": {func(s *sriov.State) { s.PFs[0].Uplink = "eth0: default route" }, grow, "guard uplink: 0000:01:00.0 (eth0): the card starts anew when its VFs change, and the node cannot be reached without it (eth0: default route)"},
		"a VF in use, to be destroyed": {
			func(s *sriov.State) { s.PFs[0].VFs[3].Users = user }, grow,
			"guard in-use: 0000:01:00.0 (eth0): to have 7 VFs instead of 4, all are destroyed first, and some are in use: free them, or keep numVFs: 4 (VF 3 (0000:01:01.3, eth0v3): process 7 holds it (/proc/7/fd/3))",
		},
		"a VF in use, to be bound":    {func(s *sriov.State) { s.PFs[0].VFs[1].Users = user }, vfio, "guard in-use: VF 1 (0000:01:01.1, eth0v1) of 0000:01:00.0 (eth0): it is in use"},
		"a VF that is not isolated":   {func(s *sriov.State) { s.PFs[0].VFs[1].Neighbours = []string{"0000:01:00.0"} }, vfio, "guard isolation: VF 1 (0000:01:01.1, eth0v1) of 0000:01:00.0 (eth0)"},
		"a driver that is not loaded": {func(s *sriov.State) { s.Drivers = []string{"igb"} }, vfio, "driver vfio-pci is not loaded; modprobe vfio-pci"},
	} {
		t.Run(name, func(t *testing.T) {
			state := bareState(1, 4)
			test.given(&state)
			plan := sriov.Plan([]sriov.Spec{test.spec}, state, nil)
			if len(plan.Refusals) != 1 || !strings.Contains(plan.Refusals[0].Error(), test.want) || plan.Refusals[0].Policy != "p" {
				t.Errorf("got %v\nwant %s", plan.Refusals, test.want)
			}
		})
	}
}

// TestUsersOfThePFAreHit: the host's own traffic stops while a card starts anew.
func TestUsersOfThePFAreHit(t *testing.T) {
	state := bareState(1, 0)
	state.PFs[0].Users = []sriov.User{{Source: "eth0", Detail: "the host has 10.0.0.1/24 there"}}
	plan := sriov.Plan([]sriov.Spec{{PF: "0000:01:00.0", NumVFs: 2}}, state, nil)
	const want = "create 2 VFs on 0000:01:00.0 (eth0) [link-flap] hits the host has 10.0.0.1/24 there (eth0)"
	if len(plan.Steps) < 2 || plan.Steps[1].String() != want {
		t.Errorf("got %v, want %s", plan.Steps, want)
	}
}

func TestOriginalsOfAnotherAgentAreRefused(t *testing.T) {
	for _, step := range []reconcile.Step{
		{Kind: "sriov/vfs", Target: "0000:01:00.0", Was: json.RawMessage(`{"count": 1, "colour": "red"}`)},
		{Kind: "sriov/colour", Target: "0000:01:00.0", Was: json.RawMessage(`1`)},
	} {
		plan := sriov.Plan(nil, bareState(1, 2), []reconcile.Step{step})
		if len(plan.Refusals) != 1 || plan.Refusals[0].Guard != "originals" || len(plan.Steps) > 0 {
			t.Errorf("got %+v", plan)
		}
	}
}

// slowSysfs takes its time for sriov_numvfs.
type slowSysfs struct {
	sriov.Sysfs
	wait time.Duration
}

func (s slowSysfs) Write(ctx context.Context, name, value string) error {
	if strings.HasSuffix(name, "sriov_numvfs") {
		select {
		case <-time.After(s.wait):
		case <-ctx.Done():
			return errors.Join(errors.New("did not answer"), context.Cause(ctx))
		}
	}
	return s.Sysfs.Write(ctx, name, value)
}

// TestSlowWriteIsBoundedAndReported has a driver that takes 12 s, and one that
// takes for ever.
func TestSlowWriteIsBoundedAndReported(t *testing.T) {
	for wait, want := range map[time.Duration]struct {
		reports int
		err     string
	}{12 * time.Second: {reports: 2}, time.Hour: {60, "the driver has not made it so in 5m0s"}} {
		f := newFake(t, 1)
		synctest.Test(t, func(t *testing.T) {
			host := f.host()
			host.Sysfs = slowSysfs{f, wait}
			var reports []string
			writer := sriov.Writer{Host: host, Progress: func(text string) { reports = append(reports, text) }}
			plan := sriov.Plan([]sriov.Spec{{PF: "0000:01:00.0", NumVFs: 2}}, observe(t, host), nil)
			_, err := writer.Apply(t.Context(), plan.Steps[1])
			if (err != nil) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
				t.Errorf("got %v, want %s", err, want.err)
			}
			if len(reports) < want.reports-1 || len(reports) > want.reports || reports[0] != "0000:01:00.0: 0 VFs are there, 2 are wanted, after 5s" {
				t.Errorf("%d reports: %v", len(reports), reports)
			}
		})
	}
}

// FuzzPlan makes policies and hosts of bytes. Whatever they are, no step is in a
// plan without refusals that touches what is in use or gives away what is not
// isolated, and a plan can be restricted and hashed.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{3, 4, 1, 0, 0, 1, 2, 100}, "0-1", "vfio-pci")
	f.Add([]byte{7, 0, 0, 0, 0, 0, 0, 0}, "6", "")
	f.Add([]byte{2, 7, 255, 3, 9, 9, 9, 9}, "0,2", "igbvf")
	f.Fuzz(func(t *testing.T, data []byte, vfs, driver string) {
		if len(data) < 8 {
			return
		}
		state := bareState(2, int(data[1]%9))
		for i := range state.PFs[0].VFs {
			if data[2]>>(i%8)&1 == 1 {
				state.PFs[0].VFs[i].Users = []sriov.User{{Source: "s", Detail: "d"}}
			}
			if data[3]>>(i%8)&1 == 1 {
				state.PFs[0].VFs[i].Neighbours = []string{"0000:00:00.0"}
			}
			if data[4]>>(i%8)&1 == 1 {
				state.PFs[0].VFs[i].Driver, state.PFs[0].VFs[i].Netdevs, state.PFs[0].VFs[i].MTU = "vfio-pci", nil, 0
			}
		}
		if data[5]&1 == 1 {
			state.PFs[0].Uplink = "default route"
		}
		spec, err := sriov.NewSpec("p", "0000:01:00.0", v1alpha1.SRIOV{NumVFs: int(data[0]), Pools: []v1alpha1.Pool{
			{Name: "a", VFs: vfs, Driver: driver, VLAN: int(data[6]), MTU: int(data[7]) * 10},
		}})
		if err != nil {
			return
		}
		plan := sriov.Plan([]sriov.Spec{spec}, state, nil)
		_ = plan.Hash()
		if len(plan.Refusals) > 0 {
			return
		}
		for _, step := range plan.Steps {
			checkStep(t, state.PFs[0], step)
		}
	})
}

func checkStep(t *testing.T, pf sriov.PFState, step reconcile.Step) {
	t.Helper()
	recreated := strings.HasSuffix(step.Kind, "/vfs")
	for _, vf := range pf.VFs {
		mine := step.Item == strconv.Itoa(vf.Index) && !reconcile.Same(step.Was, nil)
		if len(vf.Users) > 0 && (recreated || mine) {
			t.Errorf("%s touches VF %d, which is in use", step, vf.Index)
		}
		if mine && strings.Contains(string(step.Want), `"vfio-pci"`) && strings.HasSuffix(step.Kind, "/driver") && len(vf.Neighbours) > 0 {
			t.Errorf("%s gives VF %d away, which is not isolated", step, vf.Index)
		}
	}
	if recreated && pf.Uplink != "" {
		t.Errorf("%s touches the uplink", step)
	}
}

// BenchmarkPlan plans 64 PFs of 128 VFs each, all of which change.
func BenchmarkPlan(b *testing.B) {
	state := bareState(64, 128)
	var specs []sriov.Spec
	for _, pf := range state.PFs {
		spec := sriov.Spec{PF: pf.Address, Policy: "p", NumVFs: 128}
		pool := sriov.Pool{Name: "all", Driver: "vfio-pci", Attributes: sriov.Attributes{VLAN: new(7), QoS: new(0), Trust: new(true)}}
		for index := range 128 {
			pool.VFs = append(pool.VFs, index)
		}
		spec.Pools = []sriov.Pool{pool}
		specs = append(specs, spec)
	}
	for b.Loop() {
		if plan := sriov.Plan(specs, state, nil); len(plan.Steps) != 2*64*128 || len(plan.Refusals) > 0 {
			b.Fatal(len(plan.Steps), plan.Refusals)
		}
	}
}
