package libvirt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/virtnode/nodeagent/pkg/qemu"
	"github.com/virtnode/nodeagent/test/libvirt"
)

// monitored reports whether a machine's QEMU has told everything.
func monitored(vm qemu.VM) bool {
	return vm.Monitor.Reason == qemu.Ready && vm.Memory.Resident.Set && len(vm.Blocks) == 1 && vm.Blocks[0].Read.Bytes.Set
}

// TestAgentMeetsAHungQEMU has the agent start on a host where a QEMU hangs
// already, so that its own call is the first to wait for it.
func TestAgentMeetsAHungQEMU(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	names := []string{"a", "b", "c", "hung", "x", "y", "z"}
	for _, name := range names {
		start(t, host, libvirt.Domain{Name: name})
	}
	id := uuids(t, host, names...)
	must(t, host.Hang("hung"))
	c := collector(t, host, qemu.Options{Budget: 2 * time.Second, CallTimeout: 4 * time.Second})

	first := c.Collect(t.Context())
	for _, name := range names {
		// One that has just started may be busy with that.
		if vm := vmOf(first, id[name]); name != "hung" && !monitored(vm) && vm.Monitor.Reason != qemu.Busy {
			t.Errorf("in the first scrape, %s is incomplete: %+v", name, vm)
		}
	}
	if vm := vmOf(first, id["hung"]); vm.State != qemu.StateRunning || vm.Process == nil || vm.Monitor.Reason != qemu.Pending {
		t.Errorf("in the first scrape, the hung one has state %q, process %v, %+v", vm.State, vm.Process, vm.Monitor)
	}
	eventually(t, "the hung one is known", func() error {
		s := c.Collect(t.Context())
		defer s.Release()
		for _, name := range names {
			if vm := vmOf(s, id[name]); name != "hung" && !monitored(vm) && vm.Monitor.Reason != qemu.Busy {
				t.Errorf("%s is incomplete: %+v", name, vm)
			}
		}
		// Its second call gets round the lock that the first one holds.
		if vm := vmOf(s, id["hung"]); vm.Monitor.Reason != qemu.CallTimeout || vm.Monitor.Abandoned != 1 || !vm.CPU.Time.Set {
			return fmt.Errorf("%+v", vm)
		}
		return nil
	})
	must(t, host.Resume("hung"))
	eventually(t, "the hung one is back", func() error {
		s := c.Collect(t.Context())
		defer s.Release()
		if vm := vmOf(s, id["hung"]); !monitored(vm) {
			return fmt.Errorf("%+v", vm.Monitor)
		}
		return nil
	})
}

// holdHelper makes libvirt's program that writes files wait for the returned
// function to be called.
func holdHelper(t *testing.T, host *libvirt.Host) (release func()) {
	t.Helper()
	const helper = "/usr/lib/libvirt/libvirt_iohelper"
	original, err := os.ReadFile(helper)
	must(t, err)
	dir := host.Dir()
	kept, script, open := filepath.Join(dir, "iohelper"), filepath.Join(dir, "iohelper.sh"), filepath.Join(dir, "open")
	must(t, os.WriteFile(kept, original, 0o755))
	text := fmt.Sprintf("#!/bin/sh\nuntil [ -e %s ]; do sleep 0.05; done\nexec %s \"$@\"\n", open, kept)
	must(t, os.WriteFile(script, []byte(text), 0o755))
	if out, err := host.Command(t.Context(), "mount", "--bind", script, helper).CombinedOutput(); err != nil {
		t.Fatalf("mount over %s: %v: %s", helper, err, out)
	}
	return func() { must(t, os.WriteFile(open, nil, 0o644)) }
}

// TestAgentTellsAJobWhileItLasts saves a machine's memory, stands in the way
// of the program that writes the file, and looks at the job meanwhile.
func TestAgentTellsAJobWhileItLasts(t *testing.T) {
	host := libvirt.New(t, libvirt.Options{})
	start(t, host, libvirt.Domain{Name: "saved"}, libvirt.Domain{Name: "other"})
	id := uuids(t, host, "saved", "other")
	c := collector(t, host, qemu.Options{})
	s := fresh(t, c)
	if job := vmOf(s, id["saved"]).Job; job != (qemu.Job{}) {
		t.Errorf("before it begins: %+v", job)
	}

	release := holdHelper(t, host)
	saving := make(chan error, 1)
	file := filepath.Join(t.TempDir(), "memory")
	go func() {
		_, err := host.Virsh(t.Context(), "save", "saved", file)
		saving <- err
	}()
	eventually(t, "the job is told", func() error {
		s := c.Collect(t.Context())
		vm := vmOf(s, id["saved"])
		if vm.Job.Kind != "save" || !vm.Job.Elapsed.Set || vm.Job.Memory.Total.V < 16<<20 || !vm.Job.Memory.Processed.Set || vm.Monitor.Reason != qemu.Ready {
			return fmt.Errorf("%+v, %+v", vm.Job, vm.Monitor)
		}
		if vm := vmOf(s, id["other"]); vm.Job != (qemu.Job{}) || !monitored(vm) {
			t.Errorf("the other one: %+v", vm)
		}
		return nil
	})
	release()
	must(t, <-saving)
	eventually(t, "the job has ended", func() error {
		vm := vmOf(c.Collect(t.Context()), id["saved"])
		if vm.State != qemu.StateShutoff || vm.StateReason != "saved" || vm.Job != (qemu.Job{}) {
			return fmt.Errorf("%s, %s, %+v", vm.State, vm.StateReason, vm.Job)
		}
		return nil
	})
}
