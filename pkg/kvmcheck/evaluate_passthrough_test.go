package kvmcheck

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virtnode/nodeagent/pkg/sriov"
)

// group is an IOMMU group of devices "ADDRESS [DRIVER]"; the driver "?" cannot be read.
func group(id int, devices ...string) IOMMUGroup {
	group := IOMMUGroup{ID: id, Type: known("/type", "DMA"), Devices: known(fmt.Sprintf("/groups/%d/devices", id), []GroupDevice{})}
	for _, text := range devices {
		address, driver, _ := strings.Cut(text, " ")
		source := fmt.Sprintf("/groups/%d/devices/%s/driver", id, address)
		device := GroupDevice{Name: address, Driver: known(source, driver)}
		if driver == "?" {
			device.Driver = unknown[string](source, errors.New("input/output error"))
		}
		group.Devices.Value = append(group.Devices.Value, device)
	}
	return group
}

func TestJudgeCandidate(t *testing.T) {
	const gpu = "0000:01:00.0"
	between := map[string]bool{"0000:00:01.0": true}
	for name, test := range map[string]struct {
		kind      string
		devices   []string
		viable    Status
		offenders []string
		none      bool // it is no candidate
	}{
		"alone, on its host's driver":                  {kindGPU, []string{gpu + " nvidia"}, Ready, nil, false},
		"alone, without driver":                        {kindNVMe, []string{gpu}, Ready, nil, false},
		"alone, bound to vfio-pci":                     {kindVF, []string{gpu + " vfio-pci"}, Ready, nil, false},
		"bound to a vendor's VFIO driver":              {kindOther, []string{gpu + " mlx5_vfio_pci"}, Ready, nil, false},
		"not meant for VMs":                            {kindOther, []string{gpu + " ahci"}, Ready, nil, true},
		"a port without ACS in the group":              {kindGPU, []string{"0000:00:01.0 pcieport", gpu}, Ready, nil, false},
		"a bridge without driver in the group":         {kindGPU, []string{"0000:00:01.0", gpu}, Ready, nil, false},
		"a bridge with a driver of its own":            {kindGPU, []string{"0000:00:01.0 shpchp", gpu}, Unknown, nil, false},
		"a card's audio function on the host":          {kindGPU, []string{gpu + " vfio-pci", "0000:01:00.1 snd_hda_intel"}, NotReady, []string{"0000:01:00.1 (snd_hda_intel)"}, false},
		"a card's audio function bound to vfio-pci":    {kindGPU, []string{gpu + " vfio-pci", "0000:01:00.1 vfio-pci"}, Ready, nil, false},
		"a card's audio function bound to pci-stub":    {kindGPU, []string{gpu + " vfio-pci", "0000:01:00.1 pci-stub"}, Ready, nil, false},
		"a neighbour without driver":                   {kindGPU, []string{gpu + " vfio-pci", "0000:02:00.0"}, Ready, nil, false},
		"a neighbour that cannot be read":              {kindGPU, []string{gpu + " vfio-pci", "0000:02:00.0 ?"}, Unknown, nil, false},
		"a neighbour in the way and one unread":        {kindGPU, []string{gpu, "0000:02:00.0 ?", "0000:03:00.0 nvme"}, NotReady, []string{"0000:03:00.0 (nvme)"}, false},
		"ports without ACS: two cards in a group":      {kindNVMe, []string{"0000:00:01.0 pcieport", gpu + " nvme", "0000:02:00.0 nvme"}, NotReady, []string{"0000:02:00.0 (nvme)"}, false},
		"itself unread":                                {kindGPU, []string{gpu + " ?"}, Unknown, nil, false},
		"itself unread, of no kind":                    {kindOther, []string{gpu + " ?"}, Unknown, nil, false},
		"itself unread beside one in the way":          {kindOther, []string{gpu + " ?", "0000:02:00.0 nvme"}, Unknown, []string{"0000:02:00.0 (nvme)"}, false},
		"neighbour unread of one that is no candidate": {kindOther, []string{gpu + " ahci", "0000:02:00.0 ?"}, Unknown, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			in := group(7, test.devices...)
			got, is := judgeCandidate(gpu, test.kind, &in, between)
			viable := map[bool]Status{true: Ready, false: NotReady}[got.Viable.Value]
			if !got.Viable.Known {
				viable = Unknown
				if !strings.Contains(got.Viable.Err, "/groups/7/devices/") {
					t.Errorf("the cause names no path: %s", got.Viable.Err)
				}
			}
			if is == test.none || viable != test.viable || *got.Group != 7 {
				t.Errorf("got %v, %s, group %d", is, viable, *got.Group)
			}
			if diff := cmp.Diff(test.offenders, got.Offenders); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, is := judgeCandidate(gpu, kindGPU, nil, between); !is || !got.Viable.Known || got.Viable.Value || got.Group != nil {
		t.Errorf("in no group: got %+v", got)
	}
	if _, is := judgeCandidate(gpu, kindOther, nil, between); is {
		t.Error("a device in no group that nobody means for VMs is a candidate")
	}
}

func TestFindCandidates(t *testing.T) {
	facts := Facts{
		PCI: PCIInventory{Devices: known("/pci", []PCIDevice{
			{Address: "0000:00:01.0", Class: "0604"},
			{Address: "0000:01:00.0", Class: "0300"},
			{Address: "0000:01:00.1", Class: "0403"},
			{Address: "0000:02:00.0", Class: "0108"},
			{Address: "0000:03:00.0", Class: "0200"},
			{Address: "0000:03:10.0", Class: "0200"},
			{Address: "0000:04:00.0", Class: "0200"},
			{Address: "0000:05:00.0", Class: "1200"},
		})},
		SRIOV: SRIOVFacts{PFs: known("/pci", []sriov.PF{{Address: "0000:03:00.0", VFs: []sriov.VF{{Address: "0000:03:10.0"}}}})},
		IOMMU: IOMMUFacts{Groups: known("/groups", []IOMMUGroup{
			group(1, "0000:00:01.0 pcieport", "0000:01:00.0 nvidia", "0000:01:00.1 snd_hda_intel"),
			group(2, "0000:02:00.0 nvme"), group(3, "0000:03:00.0 igb"), group(4, "0000:03:10.0 vfio-pci"), group(5, "0000:04:00.0 vfio-pci"),
		})},
	}
	var got []string
	for _, c := range findCandidates(facts).Value {
		got = append(got, fmt.Sprint(c.Address, " ", c.Kind, " bound ", c.Bound, " viable ", c.Viable.Value, " ", c.Offenders))
	}
	want := []string{
		"0000:01:00.0 GPU bound false viable false [0000:01:00.1 (snd_hda_intel)]",
		"0000:02:00.0 NVMe bound false viable true []",
		"0000:03:10.0 VF bound true viable true []",
		"0000:04:00.0 other bound true viable true []",
		"0000:05:00.0 GPU bound false viable false []",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	broken := errors.New("input/output error")
	for name, change := range map[string]func(*Facts){
		"the inventory":     func(f *Facts) { f.PCI.Devices = unknown[[]PCIDevice]("/cause", broken) },
		"a PF":              func(f *Facts) { f.SRIOV.PFs.Err = "/cause: broken" },
		"the groups":        func(f *Facts) { f.IOMMU.Groups = unknown[[]IOMMUGroup]("/cause", broken) },
		"a group's devices": func(f *Facts) { f.IOMMU.Groups.Value[1].Devices = unknown[[]GroupDevice]("/cause", broken) },
	} {
		facts := facts
		facts.IOMMU.Groups.Value = append([]IOMMUGroup{}, facts.IOMMU.Groups.Value...)
		change(&facts)
		if got := findCandidates(facts); got.Known || !strings.Contains(got.Err, "/cause") {
			t.Errorf("%s cannot be read: got %+v", name, got)
		}
	}
}

func TestPassthroughFindings(t *testing.T) {
	broken := errors.New("input/output error")
	chip := func(name string, change ...func(*Facts)) func(*Facts) {
		return func(f *Facts) {
			f.IOMMU.Remapping.Chip = known("/irq/0/chip_name", name)
			for _, change := range change {
				change(f)
			}
		}
	}
	noGroups := func(f *Facts) { f.IOMMU.Groups.Value = nil }
	noIOMMU := func(f *Facts) { f.IOMMU.Units.Value = nil; f.VFIO.NoIOMMU.Value = true }
	number := 9
	viable := func(n int) []Candidate {
		list := make([]Candidate, n)
		for i := range list {
			list[i] = Candidate{Address: fmt.Sprintf("0000:03:%02x.0", i), Kind: kindVF, Group: &number, Viable: known("/groups", true)}
		}
		return list
	}
	shared := func(n int, bound bool) []Candidate {
		list := viable(n)
		for i := range list {
			list[i].Viable, list[i].Bound, list[i].Offenders = known("/groups", false), bound, []string{"0000:01:00.1 (snd_hda_intel)"}
		}
		return list
	}
	candidates := func(lists ...[]Candidate) func(*Facts) {
		return func(f *Facts) {
			f.VFIO.Candidates.Value = nil
			for _, list := range lists {
				f.VFIO.Candidates.Value = append(f.VFIO.Candidates.Value, list...)
			}
		}
	}
	unread := []Candidate{{Address: "0000:07:00.0", Viable: unknown[bool]("/cause", broken)}}
	const interrupts, groups = "iommu/interrupts", "vfio/groups"
	checkCases(t, map[string]caseOf{
		"interrupts are remapped":             {chip("IR-PCI-MSIX-0000:41:00.0"), interrupts, Ready, "", "checked by the interrupt chip IR-PCI-MSIX-0000:41:00.0"},
		"interrupts go through Arm's ITS":     {chip("ITS-PCI-MSI-0000:01:00.0"), interrupts, Ready, "", ""},
		"interrupts go straight":              {chip("IO-APIC"), interrupts, NotReady, InterruptRemappingOff, "/irq/0/chip_name is IO-APIC, not IR-IO-APIC; kernel command line: intel_iommu=on"},
		"messages go straight":                {chip("PCI-MSI"), interrupts, NotReady, InterruptRemappingOff, ""},
		"no chip tells":                       {chip(""), interrupts, Unknown, RemappingUndefined, ""},
		"no remapping without IOMMU":          {chip("IO-APIC", noGroups), interrupts, NotReady, IOMMUDisabled, "/irq/0/chip_name is IO-APIC: not remapped, and no IOMMU is in use"},
		"remapping although the IOMMU is off": {chip("IR-IO-APIC", noGroups), interrupts, Ready, "", ""},
		"no remapping, groups unread": {
			chip("IO-APIC", func(f *Facts) { f.IOMMU.Groups = unknown[[]IOMMUGroup]("/groups", broken) }), interrupts, Unknown, ReadFailed, "",
		},
		"an IOMMU that cannot, and VFIO told to accept it": {
			chip("IO-APIC", func(f *Facts) {
				f.IOMMU.Remapping.Capable = map[string]Reading[bool]{"dmar0": known("/ecap", false), "dmar1": known("/ecap", true)}
				f.IOMMU.Remapping.Unsafe = map[string]Reading[bool]{"vfio_iommu_type1": known("/unsafe", true)}
			}), interrupts, NotReady, InterruptRemappingOff,
			"/irq/0/chip_name is IO-APIC, not IR-IO-APIC; dmar0 cannot remap; vfio_iommu_type1 passes devices all the same (allow_unsafe_interrupts); kernel command line: intel_iommu=on",
		},
		"groups without IOMMU behind them":  {noIOMMU, "iommu/kernel", NotReady, IOMMUDisabled, ""},
		"devices in groups without IOMMU":   {noIOMMU, groups, NotReady, IOMMUDisabled, "1 candidate device, and no IOMMU is in use"},
		"an IOMMU that sysfs does not list": {func(f *Facts) { f.IOMMU.Units.Value = nil }, "iommu/kernel", Ready, "", "1 group"},
		"groups, and whose they are is unread": {
			func(f *Facts) { f.IOMMU.Units.Value = nil; f.VFIO.NoIOMMU = unknown[bool]("/noiommu", broken) }, "iommu/kernel", Unknown, ReadFailed, "",
		},
		"no ACPI table, groups unread": {
			func(f *Facts) { f.IOMMU.Tables.Value = nil; f.IOMMU.Groups = unknown[[]IOMMUGroup]("/groups", broken) }, "iommu/firmware", Unknown, ReadFailed, "",
		},
		"no device node of VFIO":        {func(f *Facts) { f.VFIO.Container.Value = false }, "vfio/driver", NotReady, DeviceMissing, ""},
		"a device node of VFIO unread":  {func(f *Facts) { f.VFIO.Container = unknown[bool]("/dev/vfio/vfio", broken) }, "vfio/driver", Unknown, ReadFailed, ""},
		"iommufd instead of containers": {func(f *Facts) { f.VFIO.Container.Value, f.VFIO.IOMMUFD.Value = false, true }, "vfio/driver", Ready, "", "vfio-pci is registered; /dev/iommu"},
		"many VFs":                      {candidates(viable(128)), groups, Ready, "", "128 of 128 candidate devices viable"},
		"many VFs and a GPU that is not viable": {
			candidates(viable(128), shared(1, false)), groups, Ready, "",
			"128 of 129 candidate devices viable; 0000:03:00.0 shares group 9 with 0000:01:00.1 (snd_hda_intel)",
		},
		"a bound device in a shared group": {
			candidates(viable(3), shared(1, true)), groups, NotReady, GroupNotViable,
			"3 of 4 candidate devices viable, 1 bound to VFIO; 0000:03:00.0 shares group 9 with 0000:01:00.1 (snd_hda_intel)",
		},
		"all in shared groups": {
			candidates(shared(5, false)), groups, NotReady, GroupNotViable,
			"0 of 5 candidate devices viable; 0000:03:00.0 shares group 9 with 0000:01:00.1 (snd_hda_intel)" +
				"; 0000:03:01.0 shares group 9 with 0000:01:00.1 (snd_hda_intel); and 3 more not viable",
		},
		"one in no group": {
			candidates([]Candidate{{Address: "0000:05:00.0", Viable: known("/groups", false)}}), groups, NotReady, GroupNotViable,
			"0 of 1 candidate device viable; 0000:05:00.0 is in no IOMMU group",
		},
		"one unread among many":                          {candidates(viable(2), unread), groups, Unknown, ReadFailed, "2 of 3 candidate devices viable; /cause: input/output error"},
		"one unread, and a bound one that is not viable": {candidates(unread, shared(1, true)), groups, NotReady, GroupNotViable, ""},
		"no candidate":                                   {candidates(), groups, NotReady, NoPassthroughDevice, ""},
		"candidates, and the IOMMU is off":               {noGroups, groups, NotReady, IOMMUDisabled, ""},
		"candidates unread":                              {func(f *Facts) { f.VFIO.Candidates = unknown[[]Candidate]("/cause", broken) }, groups, Unknown, ReadFailed, ""},
	})
}
