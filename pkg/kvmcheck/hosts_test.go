package kvmcheck_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

var update = flag.Bool("update", false, "write the expected reports of test/hosts")

// TestMain gives every test one empty database of PCI names, so that tests can
// run at the same time.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "nodeagent-test-")
	if err != nil {
		panic(err)
	}
	name := filepath.Join(dir, "pci.ids")
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Setenv("PCIDB_PATH", name)); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// TestRecordedHosts compares each recorded machine's report, whole.
func TestRecordedHosts(t *testing.T) {
	for name, path := range hosttest.Hosts(t) {
		t.Run(name, func(t *testing.T) {
			report := hosttest.Report(t, path).Report
			declared(t, report.Findings)
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

// TestLyingFilesAreUnknown writes garbage where numbers are expected.
func TestLyingFilesAreUnknown(t *testing.T) {
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

func (d silentRegisters) ReadCPUID(cpu int, _ uint32) (kvmcheck.CPUIDRegisters, error) {
	return kvmcheck.CPUIDRegisters{}, &fs.PathError{Op: "read", Path: fmt.Sprintf("/dev/cpu/%d/cpuid", cpu), Err: d.errno}
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
