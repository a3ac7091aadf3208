package kvmcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

// tree makes a host of files, and of links where the text starts with "->".
func tree(t *testing.T, files map[string]string) *hostfs.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if target, isLink := strings.CutPrefix(text, "->"); err == nil && isLink {
			err = os.Symlink(target, full)
		} else if err == nil {
			err = os.WriteFile(full, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestCollectGroups(t *testing.T) {
	root := tree(t, map[string]string{
		"/sys/devices/pci0/0000:01:00.0/class":             "0x030000\n",
		"/sys/devices/pci0/0000:01:00.0/driver":            "->../../../bus/pci/drivers/vfio-pci",
		"/sys/devices/pci0/0000:01:00.1/class":             "0x040300\n",
		"/sys/kernel/iommu_groups/7/type":                  "DMA-FQ\n",
		"/sys/kernel/iommu_groups/7/devices/0000:01:00.0":  "->../../../../devices/pci0/0000:01:00.0",
		"/sys/kernel/iommu_groups/7/devices/0000:01:00.1":  "->../../../../devices/pci0/0000:01:00.1",
		"/sys/kernel/iommu_groups/10/type":                 "identity\n",
		"/sys/kernel/iommu_groups/10/devices/0000:02:00.0": "->../../../../devices/pci0/gone",
		"/sys/class/iommu/dmar0/intel-iommu/ecap":          "f020df\n",
		"/sys/class/iommu/ivhd0/amd-iommu/cap":             "0\n",
	})
	var got []string
	facts := collectIOMMU(root)
	for _, group := range facts.Groups.Value {
		for _, device := range group.Devices.Value {
			got = append(got, strings.Join([]string{group.Type.Value, device.Name, device.Driver.Value, device.Driver.Err}, " "))
		}
	}
	want := []string{"DMA-FQ 0000:01:00.0 vfio-pci ", "DMA-FQ 0000:01:00.1  ", "identity 0000:02:00.0  "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]Reading[bool]{"dmar0": known("/sys/class/iommu/dmar0/intel-iommu/ecap", true)}, facts.Remapping.Capable); diff != "" {
		t.Error(diff)
	}
	if got := collectGroups(tree(t, map[string]string{"/sys/kernel/iommu_groups/x/type": ""})); got.Known {
		t.Errorf("a group without a number: got %+v", got)
	}
}

func TestCollectChip(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  Reading[string]
	}{
		"the first that tells, in the order of numbers": {
			map[string]string{"2": "XT-PIC\n", "9": "IR-IO-APIC\n", "10": "IO-APIC\n"}, known("/sys/kernel/irq/9/chip_name", "IR-IO-APIC"),
		},
		"no chip tells": {map[string]string{"1": "GICv3\n", "2": ""}, known("/sys/kernel/irq", "")},
		"an unread one, and one that tells": {
			map[string]string{"1": "->1", "2": "PCI-MSI\n"}, known("/sys/kernel/irq/2/chip_name", "PCI-MSI"),
		},
		"an unread one, and none that tells": {
			map[string]string{"1": "->1", "2": "GICv3\n"},
			Reading[string]{Source: "/sys/kernel/irq/1/chip_name", Err: "read /sys/kernel/irq/1/chip_name: too many levels of symbolic links"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/proc/version": "Linux\n"}
			for irq, chip := range test.files {
				if chip == "->1" {
					chip = "->chip_name" // to itself: cannot be read
				}
				files["/sys/kernel/irq/"+irq+"/chip_name"] = chip
			}
			if diff := cmp.Diff(test.want, collectChip(tree(t, files))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCollectMemoryPolicyOfAKernelWithoutTheFeatures(t *testing.T) {
	bare := map[string]string{
		"/sys/kernel/mm/empty": "", "/proc/sys/vm/overcommit_memory": "0\n", "/proc/sys/vm/overcommit_ratio": "50\n",
		"/proc/meminfo": "SwapTotal: 0 kB\nSwapFree: 0 kB\n",
	}
	policy := collectMemoryPolicy(tree(t, bare))
	if !policy.THP.Known || policy.THP.Value != "" || !policy.KSM.Known || policy.KSM.Value != 0 || !policy.Swap.Known {
		t.Errorf("got %+v", policy)
	}
	for file, failed := range map[string]func(MemoryPolicy) string{
		"/sys/kernel/mm/transparent_hugepage/enabled": func(p MemoryPolicy) string { return p.THP.Err },
		"/sys/kernel/mm/ksm/run":                      func(p MemoryPolicy) string { return p.KSM.Err },
		"/sys/kernel/mm/ksm/merge_across_nodes":       func(p MemoryPolicy) string { return p.KSMAcrossNodes.Err },
		"/proc/sys/vm/overcommit_memory":              func(p MemoryPolicy) string { return p.Overcommit.Err },
		"/proc/meminfo":                               func(p MemoryPolicy) string { return p.Swap.Err },
	} {
		for name, lie := range map[string]string{"nothing": "", "words": "no idea", "binary": "\x00\xff\x00"} {
			files := map[string]string{file: lie}
			for other, text := range bare {
				if other != file {
					files[other] = text
				}
			}
			if got := failed(collectMemoryPolicy(tree(t, files))); !strings.Contains(got, file) {
				t.Errorf("%s holds %s: got error %q", file, name, got)
			}
		}
	}
}
