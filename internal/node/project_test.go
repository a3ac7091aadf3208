package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/api/v1alpha1"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// lookAt is a look at a recorded machine.
func lookAt(t testing.TB, name string) Look {
	t.Helper()
	return Look{Report: kvmcheck.NewReport(hosttest.Replay(t, hosttest.Hosts(t)[name]), kvmcheck.Profile{}, "test", hosttest.Time())}
}

// at is the look at another time.
func (l Look) at(after time.Duration) Look {
	l.Report.Time = l.Report.Time.Add(after)
	return l
}

// story is a row of looks, and what is published after each.
type story struct {
	truth truth
	after time.Duration
	step  time.Duration
}

func (s *story) look(look Look) wanted {
	s.truth = s.truth.observe(look.at(s.after))
	s.after += s.step
	return s.truth.want()
}

func TestATrueLabelGoesOnlyAfterThreeNegativesOverAMinute(t *testing.T) {
	good, bad := lookAt(t, "vm-kvm"), lookAt(t, "vm-no-module")
	s := &story{step: 25 * time.Second}
	first := s.look(good)
	if first.labels["virtnode.io/kvm"] != yes || first.conditions[0].Status != "True" || first.status.Verdict != "Ready" {
		t.Fatalf("at first: %v, %v, %s", first.labels, first.conditions, first.status.Verdict)
	}
	for i := range 3 {
		if diff := cmp.Diff(first, s.look(bad), cmp.AllowUnexported(wanted{}, Condition{})); diff != "" {
			t.Fatalf("after %d negatives in less than a minute:\n%s", i+1, diff)
		}
	}
	gone := s.look(bad)
	if gone.labels["virtnode.io/kvm"] != "false" || gone.conditions[0].value() != "False/ModuleNotLoaded" || gone.status.Verdict != "NotReady" {
		t.Errorf("after a minute: %v, %v", gone.labels, gone.conditions)
	}
	if _, found := gone.labels["virtnode.io/kvm.nested"]; found {
		t.Errorf("nested stays: %v", gone.labels)
	}
	back := s.look(good)
	if back.labels["virtnode.io/kvm"] != yes || back.conditions[0].Status != "True" {
		t.Errorf("not back at once: %v, %v", back.labels, back.conditions)
	}
}

// TestAFlappingProbeChangesNothing alternates for ten minutes.
func TestAFlappingProbeChangesNothing(t *testing.T) {
	good, bad := lookAt(t, "vm-kvm"), lookAt(t, "vm-no-module")
	s := &story{step: 10 * time.Second}
	first := s.look(good)
	for i := range 60 {
		look := good
		if i%3 != 2 { // two negatives, then a positive
			look = bad
		}
		if diff := cmp.Diff(first.labels, s.look(look).labels); diff != "" {
			t.Fatalf("look %d:\n%s", i, diff)
		}
	}
}

func TestUnknownNeverRemovesAnything(t *testing.T) {
	s := &story{step: time.Minute}
	first := s.look(lookAt(t, "vm-numa-sriov"))
	_, nothing := hosttest.OpenHost(t, t.TempDir())
	blind := Look{Report: kvmcheck.NewReport(kvmcheck.Collect(t.Context(), nothing), kvmcheck.Profile{}, "test", hosttest.Time())}
	blind.Report.Facts.Host.Arch = "amd64"
	var last wanted
	for range 10 {
		last = s.look(blind)
	}
	if diff := cmp.Diff(first.labels, last.labels); diff != "" {
		t.Error(diff)
	}
	if last.conditions[0].Status != "Unknown" || last.status.Verdict != "Unknown" {
		t.Errorf("the condition says %v", last.conditions[0])
	}
}

// TestWhatWasPublishedBeforeARestartHolds starts with what is on the Node.
func TestWhatWasPublishedBeforeARestartHolds(t *testing.T) {
	bad := lookAt(t, "vm-no-module")
	s := &story{step: 31 * time.Second}
	s.truth.labels = held[struct{}]{"virtnode.io/kvm": {value: yes}, "virtnode.io/of-an-older-version": {value: yes}}
	s.truth.conditions = held[Condition]{VirtualizationReady: {value: "True/VirtualizationReady", of: Condition{Type: VirtualizationReady, Status: "True"}}}
	for range 2 {
		w := s.look(bad)
		if w.labels["virtnode.io/kvm"] != yes || w.labels["virtnode.io/of-an-older-version"] != yes || w.conditions[0].Status != "True" {
			t.Fatalf("lost at once: %v, %v", w.labels, w.conditions)
		}
	}
	w := s.look(bad)
	if _, found := w.labels["virtnode.io/of-an-older-version"]; found || w.labels["virtnode.io/kvm"] != "false" || w.conditions[0].Status != "False" {
		t.Errorf("kept for good: %v, %v", w.labels, w.conditions)
	}
}

func TestNetworks(t *testing.T) {
	report := func(state string, ready bool) []v1alpha1.NetworkReport {
		return []v1alpha1.NetworkReport{{Policy: "storage", State: state, Message: "because", Interfaces: []v1alpha1.InterfaceReport{{Name: "stor0", Ready: ready}}}}
	}
	unread := []v1alpha1.NetworkReport{{Policy: "storage", State: v1alpha1.NetworkFailed, Message: "because"}}
	host := truth{}.observe(lookAt(t, "vm-kvm"))
	at := hosttest.Time()
	for i, test := range []struct {
		reports  []v1alpha1.NetworkReport
		managed  bool
		want     string
		labelled bool
	}{
		{nil, false, "/", false},
		{nil, true, "True/NoPolicy", false},
		{report("Converged", true), true, "True/Converged", true},
		{report("Drifted", false), true, "True/Converged", true},
		{unread, true, "True/Converged", true},
		{report("Drifted", false), true, "True/Converged", true}, // the unknown broke the row
		{report("Drifted", false), true, "True/Converged", true},
		{report("Drifted", false), true, "False/Drifted", false},
		{report("Converged", true), true, "True/Converged", true},
		{unread, true, "True/Converged", true},
		{unread, true, "True/Converged", true},
		{unread, true, "Unknown/Failed", true},
		{report("Restored", false), true, "True/NoPolicy", true},
		{nil, false, "True/NoPolicy", true},
		{nil, false, "True/NoPolicy", false},
		{nil, false, "/", false},
	} {
		host.network = host.network.observe(at, test.reports, test.managed)
		at = at.Add(31 * time.Second)
		w := host.want()
		_, labelled := w.labels["virtnode.io/network.stor0"]
		var c Condition
		for _, one := range w.conditions {
			if one.Type == HostNetworkReady {
				c = one
			}
		}
		if c.value() != test.want || labelled != test.labelled || len(w.status.Networks) != len(test.reports) {
			t.Errorf("step %d: %s, label %v; want %s, %v", i, c.value(), labelled, test.want, test.labelled)
		}
	}
}

func TestNumbersRiseAtOnceAndFallSlowly(t *testing.T) {
	look := lookAt(t, "vm-numa-sriov")
	s := &story{step: 31 * time.Second}
	vfs := func(count int) string {
		pfs := look.Report.Facts.SRIOV.PFs
		pfs.Value = append(pfs.Value[:0:0], pfs.Value...)
		for i := range pfs.Value {
			pfs.Value[i].NumVFs = 0
		}
		pfs.Value[0].NumVFs = count
		look.Report.Facts.SRIOV.PFs = pfs
		return s.look(look).labels["virtnode.io/sriov.vfs-configured"]
	}
	var got []string
	for _, count := range []int{2, 7, 4, 4, 4, 0} {
		got = append(got, vfs(count))
	}
	if diff := cmp.Diff([]string{"2", "7", "7", "7", "4", "4"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestMessagesDoNotMakeADifference changes what only a message tells.
func TestMessagesDoNotMakeADifference(t *testing.T) {
	look := lookAt(t, "vm-no-module")
	s := &story{step: time.Minute}
	s.look(look)
	s.look(look)
	first := s.look(look)
	for range 5 {
		for i := range look.Report.Findings {
			look.Report.Findings[i].Message += " and more"
		}
		if diff := cmp.Diff(first.status, s.look(look).status); diff != "" {
			t.Fatal(diff)
		}
	}
}
