package kvmcheck_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

var update = flag.Bool("update", false, "write the expected reports of test/hosts")

// TestRecordedHosts compares each recorded machine's report, whole.
func TestRecordedHosts(t *testing.T) {
	for name, path := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			report := kvmcheck.NewReport(hosttest.Replay(t, path), kvmcheck.Profile{}, "test", hosttest.Time())
			var got bytes.Buffer
			if err := (kvmcheck.Table{Width: 120}).Write(&got, report); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(hosttest.Root(), "test", "hosts", name+".txt")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("go test ./pkg/kvmcheck -update writes what is right now (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReportSurvivesJSON(t *testing.T) {
	for name, path := range hosttest.Hosts(t) {
		report := kvmcheck.NewReport(hosttest.Replay(t, path), kvmcheck.Profile{}, "test", hosttest.Time())
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		var back kvmcheck.Report
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(again)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if diff := cmp.Diff(report.Findings, kvmcheck.Evaluate(back.Facts, kvmcheck.Profile{})); diff != "" {
			t.Errorf("%s: the facts in the JSON judge differently:\n%s", name, diff)
		}
	}
}

// TestUnreadableIsNeverNo fails every single read of every recorded machine.
// A finding may become Unknown, with the cause; it may never turn over.
func TestUnreadableIsNeverNo(t *testing.T) {
	hosttest.EmptyPCIDB(t)
	for name, path := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			root, host := hosttest.OpenHost(t, path)
			before := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{})
			undecided := 0
			for _, operation := range operations(t, root) {
				for _, errno := range []string{"EIO", "EACCES"} {
					undecided += failOne(t, root, host, before, operation, errno)
				}
			}
			if undecided == 0 {
				t.Error("no failed read ever made a finding Unknown: nothing was injected")
			}
		})
	}
}

// failOne injects one error and returns how many findings became Unknown.
func failOne(t *testing.T, root *hostfs.Root, host kvmcheck.Host, before []kvmcheck.Finding, operation, errno string) int {
	t.Helper()
	faults := root.Recording().Faults
	if _, failed := faults[operation]; failed {
		return 0
	}
	faults[operation] = errno
	defer delete(faults, operation)
	_, place, _ := strings.Cut(operation, " ")
	after := make(map[string]kvmcheck.Finding)
	for _, finding := range kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{}) {
		after[finding.Area+"/"+finding.Check] = finding
	}
	undecided := 0
	for _, was := range before {
		key := was.Area + "/" + was.Check
		is, found := after[key]
		switch {
		case !found && was.Area == "memory": // the pools could not be listed
		case !found:
			t.Errorf("%s: %s: finding %s is gone", operation, errno, key)
		case is.Status == kvmcheck.Unknown && was.Status != kvmcheck.Unknown:
			undecided++
			if !strings.Contains(is.Message, place) {
				t.Errorf("%s: %s: finding %s does not name the path: %s", operation, errno, key, is.Message)
			}
		case is.Status != was.Status:
			t.Errorf("%s: %s: finding %s went from %s to %s: %s", operation, errno, key, was.Status, is.Status, is.Message)
		}
	}
	return undecided
}

// operations lists what a recording's probes did, as the keys of its faults.
func operations(t *testing.T, root *hostfs.Root) []string {
	t.Helper()
	manifest := root.Recording()
	all := make(map[string]bool)
	for dir := range manifest.Listed {
		all["list "+dir] = true
	}
	for _, name := range slices.Concat(manifest.Absent, manifest.Present) {
		for _, op := range []string{"stat ", "read ", "list ", "readlink "} {
			all[op+name] = true
		}
	}
	err := filepath.WalkDir(root.Dir(), func(full string, entry fs.DirEntry, err error) error {
		name := "/" + strings.TrimPrefix(strings.TrimPrefix(full, root.Dir()), "/")
		switch {
		case err != nil:
			return err
		case entry.Type()&fs.ModeSymlink != 0:
			all["readlink "+name] = true
		case entry.Type().IsRegular():
			all["read "+name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(all))
}

// TestLyingFilesAreUnknown writes garbage where numbers are expected.
func TestLyingFilesAreUnknown(t *testing.T) {
	hosttest.EmptyPCIDB(t)
	host := filepath.Join(hosttest.Root(), "test", "hosts", "vm-numa-sriov.tar.gz")
	for file, check := range map[string]string{
		"/proc/cpuinfo": "cpu/virtualization",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":   "memory/hugepages-2Mi",
		"/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "memory/hugepages-2Mi",
		"/sys/module/kvm_amd/parameters/nested":                    "kvm/nested",
	} {
		for name, garbage := range map[string]string{"nothing": "", "words": "no idea", "binary": "\x00\xff\x00", "endless": strings.Repeat("9", 1<<20)} {
			t.Run(path.Base(file)+" holds "+name, func(t *testing.T) {
				root, host := hosttest.OpenHost(t, host)
				full, err := root.Resolve(file)
				if err == nil {
					err = os.WriteFile(full, []byte(garbage), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, finding := range kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{}) {
					if finding.Area+"/"+finding.Check != check {
						continue
					}
					if finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, file) || len(finding.Message) > 500 {
						t.Errorf("got %s: %.600s", finding.Status, finding.Message)
					}
				}
			})
		}
	}
}

// TestLyingPlatformIsUnknown does the same where machines are made of it.
func TestLyingPlatformIsUnknown(t *testing.T) {
	for _, test := range []struct{ machine, file, check string }{
		{"intel-firmware-lock", "/sys/devices/system/cpu/online", "firmware/virtualization"},
		{"intel-two-sockets", "/sys/devices/system/clocksource/clocksource0/current_clocksource", "time/clocksource"},
		{"intel-two-sockets", "/sys/devices/system/cpu/vulnerabilities/l1tf", "safety/mitigations"},
		{"intel-two-sockets", "/sys/kernel/security/lockdown", "safety/lockdown"},
		{"intel-two-sockets", "/sys/fs/selinux/enforce", "safety/confinement"},
		{"amd-sev-snp", "/sys/module/kvm_amd/parameters/sev", "guests/confidential"},
		{"s390x-lpar", "/sys/firmware/uv/prot_virt_host", "guests/confidential"},
		{"s390x-lpar", "/proc/sysinfo", "machine/bare-metal"},
	} {
		for name, garbage := range map[string]string{"nothing": "", "words": "no idea", "binary": "\x00\xff\x00", "endless": strings.Repeat("9", 1<<20)} {
			t.Run(test.machine+": "+path.Base(test.file)+" holds "+name, func(t *testing.T) {
				root, host := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", test.machine+hosttest.MachineExt))
				full, err := root.Resolve(test.file)
				if err == nil {
					err = os.WriteFile(full, []byte(garbage), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, finding := range kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{}) {
					if finding.Key() != test.check {
						continue
					}
					if finding.Status != kvmcheck.Unknown || !strings.Contains(finding.Message, path.Base(test.file)) || len(finding.Message) > 500 {
						t.Errorf("got %s: %.600s", finding.Status, finding.Message)
					}
					return
				}
				t.Error("no such finding")
			})
		}
	}
}

// TestLyingInventoryIsUnknown covers what a library reads for us.
func TestLyingInventoryIsUnknown(t *testing.T) {
	hosttest.EmptyPCIDB(t)
	for name, modalias := range map[string]string{"nothing": "", "half": "pci:v00008086d", "binary": "\x00\x01"} {
		t.Run("modalias holds "+name, func(t *testing.T) {
			root, host := hosttest.OpenHost(t, filepath.Join(hosttest.Root(), "test", "hosts", "vm-kvm.tar.gz"))
			full, err := root.Resolve("/sys/bus/pci/devices/0000:00:00.0/modalias")
			if err == nil {
				err = os.WriteFile(full, []byte(modalias), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			devices := kvmcheck.Collect(t.Context(), host).PCI.Devices
			if devices.Known || !strings.Contains(devices.Err, "/sys/bus/pci/devices") {
				t.Errorf("got %+v", devices)
			}
		})
	}
}

// silentRegisters is a host of which no MSR and no CPUID leaf can be read.
type silentRegisters struct {
	kvmcheck.Devices
	errno unix.Errno
}

func (d silentRegisters) ReadMSR(cpu int, _ uint32) (uint64, error) {
	return 0, &fs.PathError{Op: "read", Path: fmt.Sprintf("/dev/cpu/%d/msr", cpu), Err: d.errno}
}

func (d silentRegisters) ReadCPUID(cpu int, _ uint32) (kvmcheck.CPUID, error) {
	return kvmcheck.CPUID{}, &fs.PathError{Op: "read", Path: fmt.Sprintf("/dev/cpu/%d/cpuid", cpu), Err: d.errno}
}

// TestSilentRegistersAreNeverNo takes the msr and cpuid drivers, or the
// permission to use them, from every machine.
func TestSilentRegistersAreNeverNo(t *testing.T) {
	hosttest.EmptyPCIDB(t)
	for name, path := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			_, host := hosttest.OpenHost(t, path)
			before := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), kvmcheck.Profile{})
			for _, errno := range []unix.Errno{unix.EIO, unix.EPERM, unix.ENOENT} {
				silent := kvmcheck.Host{Root: host.Root, Devices: silentRegisters{host.Devices, errno}}
				after := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), silent), kvmcheck.Profile{})
				for i, was := range before {
					is := after[i]
					switch {
					case is.Status == was.Status:
					case is.Status != kvmcheck.Unknown:
						t.Errorf("%v: finding %s went from %s to %s: %s", errno, was.Key(), was.Status, is.Status, is.Message)
					case !strings.Contains(is.Message, "/dev/cpu/0/"):
						t.Errorf("%v: finding %s does not name the path: %s", errno, was.Key(), is.Message)
					}
				}
			}
		})
	}
}
