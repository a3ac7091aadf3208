package kvmcheck

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCPUInfo(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want CPUInfo
	}{
		"Intel, two CPUs": {
			"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: fpu vmx\nvmx flags\t: ept\n\n" +
				"processor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: fpu vmx\n",
			CPUInfo{Vendor: "GenuineIntel", Model: "Xeon", CPUs: 2, Extension: "vmx", Extended: 2},
		},
		"AMD inside a VM": {
			"processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm hypervisor\n",
			CPUInfo{Vendor: "AuthenticAMD", CPUs: 1, Extension: "svm", Extended: 1, Hypervisor: true},
		},
		"the flag on one of two CPUs": {
			"processor: 0\nflags: vmx\nprocessor: 1\nflags: fpu\n",
			CPUInfo{CPUs: 2, Extension: "vmx", Extended: 1},
		},
		"a flag that only contains the word": {
			"processor: 0\nflags: svm_lock nosvm vmx2\n",
			CPUInfo{CPUs: 1},
		},
		"Arm": {
			"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n",
			CPUInfo{Vendor: "0x41", CPUs: 1},
		},
		"s390, one line of features for all": {
			"vendor_id       : IBM/S390\n# processors    : 4\nfeatures\t: esan3 zarch sie\n",
			CPUInfo{Vendor: "IBM/S390", CPUs: 4, Extension: "sie", Extended: 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCPUInfo([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, in := range []string{"", "garbage", "# processors: -1\n", "flags: vmx\n"} {
		if got, err := parseCPUInfo([]byte(in)); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestParseDistances(t *testing.T) {
	got, err := parseDistances("10 21\n")
	if err != nil || !cmp.Equal(got, []int{10, 21}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, in := range []string{"", " ", "10 x", "-1"} {
		if got, err := parseDistances(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestParseNodeMemTotal(t *testing.T) {
	got, err := parseNodeMemTotal([]byte("Node 1 MemFree: 5 kB\nNode 1 MemTotal:       2097152 kB\n"))
	if err != nil || got != 2097152 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, in := range []string{"", "Node 0 MemTotal: x kB\n", "Node 0 MemTotal: 5\n", "MemTotal: 5 kB\n"} {
		if got, err := parseNodeMemTotal([]byte(in)); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestParsePoolName(t *testing.T) {
	for name, want := range map[string]uint64{
		"hugepages-2048kB": 2048, "hugepages-1048576kB": 1 << 20, "hugepages-64kB": 64,
		"hugepages-kB": 0, "hugepages-0kB": 0, "hugepages-x": 0, "pages-4kB": 0, "hugepages--1kB": 0,
	} {
		got, ok := parsePoolName(name)
		if ok != (want > 0) || (ok && got != want) {
			t.Errorf("%s: got %d, %v", name, got, ok)
		}
	}
}

func TestParseIOMMUParameters(t *testing.T) {
	got := parseIOMMUParameters("root=/dev/vda intel_iommu=on iommu=pt amd_iommu_dump nointremap iommu.strict=0")
	if diff := cmp.Diff([]string{"intel_iommu=on", "iommu=pt", "nointremap", "iommu.strict=0"}, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("processor : 0\nflags : vmx\n"))
	f.Add([]byte("# processors : 99999999999999999999\nfeatures : sie\n"))
	f.Add([]byte("Node 0 MemTotal: 5 kB\n"))
	f.Add([]byte(`{"nodes":{"/dev/kvm":{"state":"opened"}},"kvm":{"step":"done"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := parseCPUInfo(data); err == nil && info.CPUs <= 0 {
			t.Errorf("no CPU, and no error: %+v", info)
		}
		_, _ = parseDistances(string(data))
		_, _ = parseNodeMemTotal(data)
		_, _ = parsePoolName(string(data))
		_ = parseIOMMUParameters(string(data))
		if devices, err := parseAnswers(data); err == nil {
			_ = devices.ProveKVM(t.Context())
		}
	})
}
