package qemu

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakePrograms has delays for those processes that it has counted waits of,
// and forgets those that it is not asked for.
type fakePrograms struct {
	waits   map[ProcessID]uint64
	asked   []ProcessID
	threads []Thread // nil: some may be missing
}

func (f *fakePrograms) Threads(of []ProcessID, each func(*Thread)) bool {
	for _, t := range f.threads {
		if slices.ContainsFunc(of, func(id ProcessID) bool { return id.PID == t.PID }) {
			each(&t)
		}
	}
	return f.threads != nil
}

func (f *fakePrograms) Delays(of []ProcessID, each func(int, *Histogram)) {
	f.asked = append(f.asked[:0], of...)
	kept := make(map[ProcessID]uint64)
	for _, id := range of {
		if waits, seen := f.waits[id]; seen {
			kept[id] = waits
			each(id.PID, &Histogram{Set: true, Buckets: [26]uint64{waits}})
		}
	}
	f.waits = kept
}

func TestScanAsksForRunQueueDelays(t *testing.T) {
	h := newHost(t)
	h.process(100, 5000, "qemu-kvm\x00-name\x00guest=web\x00", 10, thread{"CPU 0/KVM", 3})
	h.process(200, 6000, "qemu-kvm\x00-name\x00guest=db\x00", 10, thread{"CPU 0/KVM", 3})
	h.process(300, 7000, "qemu-kvm\x00-machine\x00none\x00", 10)
	web := ProcessID{100, time.Unix(1_700_000_050, 0)}
	db := ProcessID{200, time.Unix(1_700_000_060, 0)}
	queue := &fakePrograms{waits: map[ProcessID]uint64{web: 7}}
	now := newClock()
	s := newScanner(Options{Root: h.root, Now: now.Now, Programs: queue})
	t.Cleanup(s.close)
	delays := func() map[string]Histogram {
		found := make(map[string]Histogram)
		for _, vm := range scan(t, s) {
			found[vm.Name] = vm.Process.RunQueueDelay
		}
		return found
	}

	want := map[string]Histogram{"web": {Set: true, Buckets: [26]uint64{7}}, "db": {}}
	if diff := cmp.Diff(want, delays()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]ProcessID{web, db}, queue.asked); diff != "" {
		t.Errorf("what runs no machine is not asked for: %s", diff)
	}

	// A process that cannot be read now is no VM of this scrape, and keeps its counters.
	h.write("/proc/100/stat", "garbage")
	if found := delays(); len(found) != 1 {
		t.Errorf("an unreadable process is a VM: %v", found)
	}
	h.process(100, 5000, "qemu-kvm\x00-name\x00guest=web\x00", 10, thread{"CPU 0/KVM", 3})
	if diff := cmp.Diff(want, delays()); diff != "" {
		t.Errorf("after it can be read again: %s", diff)
	}

	// Another process with the same number begins anew.
	h.process(100, 8000, "qemu-kvm\x00-name\x00guest=web\x00", 10, thread{"CPU 0/KVM", 3})
	want["web"] = Histogram{}
	for range 2 {
		if diff := cmp.Diff(want, delays()); diff != "" {
			t.Errorf("after it was started again: %s", diff)
		}
	}
}
