package kvmcheck_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/kvmcheck/rule"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// faultBed is a recorded machine whose every read can be made to fail.
type faultBed struct {
	host       kvmcheck.Host
	faults     map[string]string
	operations []string // what a check asks of the machine
	profile    kvmcheck.Profile
	before     []kvmcheck.Finding
}

// ruled is a profile with rules about everything that there is a simple
// question about: what holds for findings must hold for them.
func ruled(t *testing.T) kvmcheck.Profile {
	t.Helper()
	var profile kvmcheck.Profile
	for name, expression := range map[string]string{
		"cpus":    `facts.cpu.info.value.extension != "" && facts.cpu.info.value.cpus > 0`,
		"modules": `"kvm_amd" in facts.kvm.modules.value`,
		"nested":  `facts.kvm.modules.value.exists(m, m in facts.kvm.nested && facts.kvm.nested[m].value)`,
		"proof":   `facts.kvm.proof.step == "done"`,
		"tun":     `facts.devices.tun.state == "opened"`,
		"pages":   `facts.memory.hugepages.value.all(p, p.free.value > 0)`,
		"nodes":   `facts.memory.numa.value.size() == 2`,
		"groups":  `facts.iommu.groups.value.size() > 0 || facts.iommu.tables.value.size() > 0`,
		"vfio":    `facts.vfio.driver.value && facts.vfio.iommufd.value`,
		"vfs":     `facts.sriov.pfs.value.exists(p, p.numVFs > 0)`,
		"devices": `facts.pci.devices.value.filter(d, d.class == "0200").size() > 1`,
		"cgroup":  `facts.cgroup.version.value == 2 && "memory" in facts.cgroup.controllers.value`,
		"product": `facts.host.product.value.vendor == "QEMU"`,
	} {
		compiled, err := rule.Compile(rule.Source{Name: name, Expression: expression, Reason: "Own", Message: "it is not so"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		profile.Rules = append(profile.Rules, compiled)
	}
	return profile
}

func newFaultBed(t *testing.T, name string) *faultBed {
	t.Helper()
	root, host := hosttest.OpenHost(t, name)
	recording, recorder := root.Record()
	kvmcheck.Collect(t.Context(), kvmcheck.Host{Root: recording, Devices: host.Devices})
	bed := &faultBed{host: host, faults: root.Recording().Faults, operations: recorder.Operations(), profile: ruled(t)}
	if len(bed.operations) < 30 {
		t.Fatalf("a check asks for %d things only: %v", len(bed.operations), bed.operations)
	}
	bed.before = bed.check(t)
	return bed
}

func (b *faultBed) check(t *testing.T) []kvmcheck.Finding {
	t.Helper()
	findings := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), b.host), b.profile)
	declared(t, findings)
	return findings
}

// TestUnreadableIsNeverNo fails every single read of every recorded machine.
// A finding may become Unknown, with the cause; it may never turn over.
func TestUnreadableIsNeverNo(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			bed := newFaultBed(t, name)
			undecided := 0
			for _, operation := range bed.operations {
				if _, failed := bed.faults[operation]; failed {
					continue
				}
				for _, errno := range errnos(name) {
					bed.faults[operation] = errno
					undecided += bed.compare(t, operation+": "+errno, operation, bed.check(t))
				}
				delete(bed.faults, operation)
			}
			if undecided == 0 {
				t.Error("no failed read ever made a finding Unknown: nothing was injected")
			}
		})
	}
}

// errnos lists the errors to inject. Code that took one error for another
// kind than the rest would do so on any machine: one has them all.
func errnos(name string) []string {
	if strings.HasSuffix(name, "vm-kvm.tar.gz") {
		return []string{"EIO", "EACCES", "EPERM", "EINVAL", "ENODEV"}
	}
	return []string{"EIO"}
}

// TestHungReadsAreUnknown does the same with reads that never return. Time is
// the bubble's own: to wait costs nothing. Four machines have all there is.
func TestHungReadsAreUnknown(t *testing.T) {
	hosts := hosttest.Hosts(t)
	for _, name := range []string{hosts["vm-iommu-off"], hosts["cloud-vm"], hosts["amd-sev-snp"], hosts["arm64-server"]} {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bed := newFaultBed(t, name)
				undecided := 0
				for _, operation := range bed.operations {
					undecided += bed.hang(t, operation)
				}
				if undecided == 0 {
					t.Error("no hung read ever made a finding Unknown: nothing was injected")
				}
			})
		})
	}
}

// hang checks the machine anew, with one read that does not return until the
// root is closed.
func (b *faultBed) hang(t *testing.T, operation string) int {
	t.Helper()
	root, err := hostfs.Open(b.host.Root.Dir())
	if err != nil {
		t.Fatal(err)
	}
	root.Recording().Faults[operation] = "HANG"
	hung := *b
	hung.host.Root = root
	begun := time.Now() // in the bubble
	undecided := b.compare(t, operation+": HANG", operation, hung.check(t))
	if took := time.Since(begun); took > kvmcheck.Deadline {
		t.Errorf("%s: the check took %v", operation, took)
	}
	if got := root.Hung(); !slices.Equal(got, []string{operation}) {
		t.Errorf("%s: %v hang", operation, got)
	}
	// What hangs is not asked again: the next check does not wait for it.
	begun = time.Now()
	b.compare(t, operation+": HANG, again", operation, hung.check(t))
	if took := time.Since(begun); took != 0 {
		t.Errorf("%s: the next check waited for %v", operation, took)
	}
	if err := root.Close(); err != nil {
		t.Error(err)
	}
	synctest.Wait()
	return undecided
}

// compare holds findings with a fault against those without, and returns how
// many are undecided because of it.
func (b *faultBed) compare(t *testing.T, fault, operation string, findings []kvmcheck.Finding) int {
	t.Helper()
	_, place, _ := strings.Cut(operation, " ")
	after := make(map[string]kvmcheck.Finding)
	for _, finding := range findings {
		after[finding.Key()] = finding
	}
	undecided := 0
	for _, was := range b.before {
		is, found := after[was.Key()]
		switch {
		case !found && was.Area == "memory": // the pools could not be listed
		case !found:
			t.Errorf("%s: finding %s is gone", fault, was.Key())
		case is.Status == kvmcheck.Unknown && was.Status != kvmcheck.Unknown:
			undecided++
			if !strings.Contains(is.Message, place) {
				t.Errorf("%s: finding %s does not name the path: %s", fault, was.Key(), is.Message)
			}
		case is.Status != was.Status:
			t.Errorf("%s: finding %s went from %s to %s: %s", fault, was.Key(), was.Status, is.Status, is.Message)
		}
	}
	b.compareDurable(t, fault, findings)
	return undecided
}

// compareDurable lets a fault stay for a long time: what labels follow does
// not change.
func (b *faultBed) compareDurable(t *testing.T, fault string, findings []kvmcheck.Finding) {
	t.Helper()
	at := hosttest.Time()
	var steady kvmcheck.Steady
	for range 3 {
		steady = steady.Observe(at, b.before)
		at = at.Add(time.Minute)
	}
	before := durable(steady)
	for range 5 {
		steady = steady.Observe(at, findings)
		at = at.Add(time.Minute)
	}
	after := durable(steady)
	for check, status := range before {
		if after[check] != status {
			t.Errorf("%s: %s was durably %s and is %s", fault, check, status, after[check])
		}
	}
}

func durable(steady kvmcheck.Steady) map[string]kvmcheck.Status {
	verdicts := make(map[string]kvmcheck.Status)
	for _, check := range steady.Checks() {
		verdicts[check.Key()] = check.Status
	}
	return verdicts
}

// TestCutFilesAreNeverNo cuts each file that is read at half of its length.
// The kernel gives one line, or a list whose end looks like any other line, so
// not every cut can be seen; none may turn a yes into a no.
func TestCutFilesAreNeverNo(t *testing.T) {
	for _, name := range hosttest.Hosts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			t.Parallel()
			bed := newFaultBed(t, name)
			cut := 0
			for _, operation := range bed.operations {
				if file, isRead := strings.CutPrefix(operation, "read "); isRead {
					cut += bed.cut(t, file)
				}
			}
			if cut == 0 {
				t.Error("no file was cut")
			}
		})
	}
}

// cut checks the machine with a file cut at half; 0 means that it has no content.
func (b *faultBed) cut(t *testing.T, file string) int {
	t.Helper()
	full, err := b.host.Root.Resolve(file)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(full)
	if err != nil || len(whole) == 0 {
		return 0
	}
	if err := os.WriteFile(full, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	after := make(map[string]kvmcheck.Finding)
	for _, finding := range b.check(t) {
		after[finding.Key()] = finding
	}
	for _, was := range b.before {
		if is := after[was.Key()]; was.Status == kvmcheck.Ready && is.Status == kvmcheck.NotReady {
			t.Errorf("%s cut at half: finding %s went from Ready to NotReady: %s", file, was.Key(), is.Message)
		}
	}
	if err := os.WriteFile(full, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	return 1
}

// stuckDevices is a host whose drivers do not answer.
type stuckDevices struct{ until chan struct{} }

func (d stuckDevices) Open(path string) kvmcheck.Node {
	<-d.until
	return kvmcheck.Node{Path: path, State: kvmcheck.NodeOpened}
}

func (d stuckDevices) ProveKVM(context.Context) kvmcheck.Proof {
	<-d.until
	return kvmcheck.Proof{Step: kvmcheck.StepDone}
}

func (d stuckDevices) ReadMSR(int, uint32) (uint64, error) {
	<-d.until
	return 0, errors.ErrUnsupported
}

func (d stuckDevices) ReadCPUID(int, uint32) (kvmcheck.CPUIDRegisters, error) {
	<-d.until
	return kvmcheck.CPUIDRegisters{}, errors.ErrUnsupported
}

func (d stuckDevices) SurveyKVM() kvmcheck.Survey {
	<-d.until
	return kvmcheck.Survey{}
}

func TestHungDevicesAreUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bed := newFaultBed(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-kvm.tar.gz"))
		stuck := stuckDevices{make(chan struct{})}
		bed.host.Devices = stuck
		for _, finding := range bed.check(t) {
			if device, asked := map[string]string{"kvm/device": "/dev/kvm", "devices/tun": "/dev/net/tun", "devices/vhost-net": "/dev/vhost-net", "devices/vhost-vsock": "/dev/vhost-vsock"}[finding.Key()]; asked {
				if finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, device+": did not answer") && !strings.Contains(finding.Message, device+": not read") {
					t.Errorf("%s is %s: %s", finding.Key(), finding.Status, finding.Message)
				}
			}
		}
		close(stuck.until)
		synctest.Wait()
		if diff := cmp.Diff([]string(nil), bed.host.Root.Hung()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestHungInventoryIsUnknown hangs a library that reads past hostfs: to open a
// FIFO waits for a writer.
func TestHungInventoryIsUnknown(t *testing.T) {
	t.Parallel()
	root, host := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-kvm.tar.gz"))
	full, err := root.Resolve("/sys/bus/pci/devices/0000:00:00.0/modalias")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(full, 0o600); err != nil {
		t.Fatal(err)
	}
	devices := kvmcheck.Collect(t.Context(), host).PCI.Devices
	if devices.Known || !strings.Contains(devices.Err, "/sys/bus/pci/devices: did not answer within 2s") {
		t.Errorf("got %+v", devices)
	}
	writer, err := os.OpenFile(full, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
}
