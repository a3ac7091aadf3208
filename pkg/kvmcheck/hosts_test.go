package kvmcheck_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/hostfs"
	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/pkg/kvmcheck/rule"
	"github.com/virtnode/nodeagent/test/hosttest"
)

var update = flag.Bool("update", false, "write the expected reports of test/hosts")

func recordings(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(hosttest.Root(), "test", "hosts", "*.tar.gz"))
	if err != nil || len(names) < 5 {
		t.Fatalf("found %d recorded hosts, %v", len(names), err)
	}
	return names
}

// TestRecordedHosts compares each recorded machine's report, whole.
func TestRecordedHosts(t *testing.T) {
	for _, name := range recordings(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			report := kvmcheck.NewReport(hosttest.Replay(t, name), kvmcheck.Profile{}, "test", hosttest.Time())
			declared(t, report.Findings)
			var got bytes.Buffer
			if err := (kvmcheck.Table{Width: 120}).Write(&got, report); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(name, ".tar.gz") + ".txt"
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
	for _, name := range recordings(t) {
		report := kvmcheck.NewReport(hosttest.Replay(t, name), kvmcheck.Profile{}, "test", hosttest.Time())
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
	for _, name := range recordings(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".tar.gz"), func(t *testing.T) {
			root, host := hosttest.OpenHost(t, name)
			profile := ruled(t)
			before := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), profile)
			undecided := 0
			for _, operation := range operations(t, root) {
				for _, errno := range []string{"EIO", "EACCES"} {
					undecided += failOne(t, root, host, profile, before, operation, errno)
				}
			}
			if undecided == 0 {
				t.Error("no failed read ever made a finding Unknown: nothing was injected")
			}
		})
	}
}

// ruled is a profile with rules about everything that there is a simple
// question about: what holds for findings must hold for them.
func ruled(t *testing.T) kvmcheck.Profile {
	t.Helper()
	var profile kvmcheck.Profile
	for name, expression := range map[string]string{
		"cpus":    `facts.cpu.info.value.cpus >= 2 && facts.cpu.info.value.extension != ""`,
		"modules": `"kvm_amd" in facts.kvm.modules.value`,
		"nested":  `facts.kvm.modules.value.exists(m, m in facts.kvm.nested && facts.kvm.nested[m].value)`,
		"proof":   `facts.kvm.proof.step == "done"`,
		"tun":     `facts.devices.tun.state == "opened"`,
		"pages":   `facts.memory.hugepages.value.all(p, p.free.value > 0)`,
		"nodes":   `facts.memory.numa.value.size() == 2`,
		"groups":  `facts.iommu.groups.value > 0 || facts.iommu.tables.value.size() > 0`,
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

// failOne injects one error and returns how many findings became Unknown.
func failOne(t *testing.T, root *hostfs.Root, host kvmcheck.Host, profile kvmcheck.Profile, before []kvmcheck.Finding, operation, errno string) int {
	t.Helper()
	faults := root.Recording().Faults
	if _, failed := faults[operation]; failed {
		return 0
	}
	faults[operation] = errno
	defer delete(faults, operation)
	_, place, _ := strings.Cut(operation, " ")
	after := make(map[string]kvmcheck.Finding)
	findings := kvmcheck.Evaluate(kvmcheck.Collect(t.Context(), host), profile)
	declared(t, findings)
	for _, finding := range findings {
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
