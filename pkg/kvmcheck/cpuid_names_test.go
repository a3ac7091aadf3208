package kvmcheck_test

import (
	"encoding/xml"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/virtnode/nodeagent/pkg/kvmcheck"
	"github.com/virtnode/nodeagent/test/hosttest"
)

// TestFeatureNamesAreLibvirts compares every bit that libvirt names with ours.
func TestFeatureNamesAreLibvirts(t *testing.T) {
	const file = "/usr/share/libvirt/cpu_map/x86_features.xml"
	text, err := os.ReadFile(file)
	hosttest.Need(t, hosttest.Libvirt, err)
	var cpus struct {
		Features []struct {
			Name  string `xml:"name,attr"`
			CPUID []struct {
				Leaf    string `xml:"eax_in,attr"`
				Subleaf string `xml:"ecx_in,attr"`
				EAX     string `xml:"eax,attr"`
				EBX     string `xml:"ebx,attr"`
				ECX     string `xml:"ecx,attr"`
				EDX     string `xml:"edx,attr"`
			} `xml:"cpuid"`
		} `xml:"feature"`
	}
	if err := xml.Unmarshal(text, &cpus); err != nil {
		t.Fatal(err)
	}
	number := func(text string) uint32 {
		if text == "" {
			return 0
		}
		value, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(value)
	}
	compared := 0
	for _, feature := range cpus.Features {
		for _, place := range feature.CPUID {
			for register, mask := range map[string]uint32{"eax": number(place.EAX), "ebx": number(place.EBX), "ecx": number(place.ECX), "edx": number(place.EDX)} {
				if bits.OnesCount32(mask) != 1 {
					continue // nothing here, or no single bit
				}
				compared++
				got := kvmcheck.CPUIDFeatureName(number(place.Leaf), number(place.Subleaf), register, bits.TrailingZeros32(mask))
				if got != feature.Name && !strings.HasPrefix(got, "leaf ") {
					t.Errorf("%s.%s %s %#x is %s, to libvirt %s", place.Leaf, place.Subleaf, register, mask, got, feature.Name)
				}
			}
		}
	}
	if compared < 200 {
		t.Errorf("compared %d features: is %s still of this form?", compared, file)
	}
}
