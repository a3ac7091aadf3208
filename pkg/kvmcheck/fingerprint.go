package kvmcheck

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fingerprint is the canonical list of what KVM can show to a guest's CPU, as
// far as it can stop a live migration. [Compare] works on it.
//
// It is made of the vendor, family and model; of KVM_GET_SUPPORTED_CPUID, with
// the registers left out that describe this CPU's place rather than its
// features (maskedRegisters, with the reason for each); of the MSRs that
// describe features (featureMasks); of the size of the nested state, and of
// Hyper-V's enlightenments. The frequency of the TSC and its scaling are kept
// beside the list, and are not in the hash: kernels measure the frequency
// anew at each boot.
type Fingerprint struct {
	Hash   string `json:"hash"`   // of the list: 12 hexadecimal digits of SHA-256
	Vendor string `json:"vendor"` // "AuthenticAMD"
	Family uint32 `json:"family"`
	Model  uint32 `json:"model"`
	// Features a guest may use once it has seen them, sorted.
	Features []string `json:"features"`
	// Amounts contain all smaller amounts: "physical address bits".
	Amounts map[string]uint64 `json:"amounts"`
	// Layout must be the same for guests that use it: "xsave component 2 offset".
	Layout map[string]uint64 `json:"layout"`

	TSCScaling bool            `json:"tscScaling"` // guests can have another frequency than the host
	TSCKHz     Reading[uint64] `json:"tscKHz"`
}

// fingerprintVersion is raised when the list is made in another way, so that
// hashes of two ways never agree by chance.
const fingerprintVersion = 1

// notAsked is why facts of an older agent have no survey.
const notAsked = kvmPath + ": KVM was not asked"

// NewFingerprint makes the list of a survey, when all of it was answered.
func NewFingerprint(survey Survey) Reading[Fingerprint] {
	for _, part := range []struct {
		known bool
		err   string
	}{
		{survey.Capabilities.Known, survey.Capabilities.Err},
		{survey.CPUID.Known, survey.CPUID.Err},
		{survey.MSRs.Known, survey.MSRs.Err},
	} {
		if !part.known {
			return Reading[Fingerprint]{Source: survey.CPUID.Source, Err: cmp.Or(part.err, notAsked)}
		}
	}
	identity, err := identify(survey.CPUID.Value)
	if err != nil {
		return unknown[Fingerprint](survey.CPUID.Source, err)
	}
	identity.fill(survey)
	return known(survey.CPUID.Source, identity)
}

// identify reads leaf 0 (vendor) and leaf 1 (family, model).
func identify(leaves []CPUID) (Fingerprint, error) {
	var print Fingerprint
	for _, leaf := range leaves {
		switch leaf.Leaf {
		case 0:
			var name []byte
			for _, register := range []uint32{leaf.EBX, leaf.EDX, leaf.ECX} {
				name = binary.LittleEndian.AppendUint32(name, register)
			}
			print.Vendor = strings.TrimRight(string(name), "\x00")
		case 1:
			print.Family, print.Model = familyAndModel(leaf.EAX)
		}
	}
	if print.Vendor == "" || print.Family == 0 {
		return print, errors.New("CPUID has no vendor or no family")
	}
	return print, nil
}

// familyAndModel decodes CPUID leaf 1 eax, extended fields included.
func familyAndModel(eax uint32) (family, model uint32) {
	const extendedFamily, pentiumPro = 0xf, 6
	family, model = eax>>8&0xf, eax>>4&0xf
	if family == pentiumPro || family == extendedFamily {
		model |= eax >> 16 & 0xf << 4
	}
	if family == extendedFamily {
		family += eax >> 20 & 0xff
	}
	return family, model
}

// fill makes the list and its hash.
func (f *Fingerprint) fill(survey Survey) {
	var text strings.Builder
	fmt.Fprintf(&text, "fingerprint %d\nvendor %s family %d model %d\n", fingerprintVersion, f.Vendor, f.Family, f.Model)
	f.Amounts, f.Layout = make(map[string]uint64), make(map[string]uint64)
	f.Features = []string{}
	for _, leaf := range canonicalCPUID(survey.CPUID.Value) {
		line, _ := leaf.MarshalText() // has no error
		fmt.Fprintf(&text, "cpuid %s\n", line)
		f.addLeaf(leaf)
	}
	for _, msr := range canonicalMSRs(survey.MSRs.Value) {
		line, _ := msr.MarshalText() // has no error
		fmt.Fprintf(&text, "msr %s\n", line)
		for bit := range 64 {
			if msr.Value>>bit&1 != 0 {
				f.Features = append(f.Features, msrFeatureName(msr.Index, bit))
			}
		}
	}
	for _, capability := range survey.Capabilities.Value {
		name, isHyperV := strings.CutPrefix(capability.Name, "HYPERV")
		switch {
		case capability.Value <= 0:
			continue
		case isHyperV:
			f.Features = append(f.Features, "hyperv"+strings.ToLower(strings.ReplaceAll(name, "_", "-")))
		case capability.Name == "NESTED_STATE":
			f.Amounts["bytes of nested state"] = uint64(capability.Value)
		default:
			continue
		}
		fmt.Fprintf(&text, "capability %s %d\n", capability.Name, capability.Value)
	}
	slices.Sort(f.Features)
	f.Features = slices.Compact(f.Features)
	sum := sha256.Sum256([]byte(text.String()))
	f.Hash = hex.EncodeToString(sum[:6])
	scaling, _ := survey.capability("TSC_CONTROL")
	f.TSCScaling, f.TSCKHz = scaling > 0, survey.TSCKHz
}

// addLeaf sorts the bits of a canonical leaf into amounts, layout and features.
func (f *Fingerprint) addLeaf(leaf CPUID) {
	registers := leaf.registers()
	for _, number := range numbersIn(leaf) {
		mask := uint32(1<<number.width-1) << number.shift
		value := uint64(registers[number.register] & mask >> number.shift)
		registers[number.register] &^= mask
		if number.exact {
			f.Layout[number.name] = value
		} else {
			f.Amounts[number.name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(registers)) {
		for bit := range 32 {
			if registers[name]>>bit&1 != 0 {
				f.Features = append(f.Features, cpuidFeatureName(leaf.Leaf, leaf.Subleaf, name, bit))
			}
		}
	}
}

func (c CPUID) registers() map[string]uint32 {
	return map[string]uint32{"eax": c.EAX, "ebx": c.EBX, "ecx": c.ECX, "edx": c.EDX}
}

// canonicalCPUID leaves out what is masked, sorts the rest by leaf and
// subleaf, and drops what says nothing.
func canonicalCPUID(leaves []CPUID) []CPUID {
	var kept []CPUID
	for _, leaf := range leaves {
		for _, masked := range maskedRegisters() {
			if masked.leaf == leaf.Leaf && (masked.subleaf == anySubleaf || masked.subleaf == int64(leaf.Subleaf)) {
				leaf.EAX &^= masked.eax
				leaf.EBX &^= masked.ebx
				leaf.ECX &^= masked.ecx
				leaf.EDX &^= masked.edx
			}
		}
		if leaf.EAX|leaf.EBX|leaf.ECX|leaf.EDX != 0 {
			kept = append(kept, leaf)
		}
	}
	slices.SortFunc(kept, func(a, b CPUID) int {
		return cmp.Or(cmp.Compare(a.Leaf, b.Leaf), cmp.Compare(a.Subleaf, b.Subleaf))
	})
	return slices.CompactFunc(kept, func(a, b CPUID) bool { return a == b })
}

// canonicalMSRs keeps the bits that are features of a guest, sorted by number.
func canonicalMSRs(msrs []MSR) []MSR {
	var kept []MSR
	for _, msr := range msrs {
		if msr.Value &= featureMask(msr.Index); msr.Value != 0 {
			kept = append(kept, msr)
		}
	}
	slices.SortFunc(kept, func(a, b MSR) int { return cmp.Compare(a.Index, b.Index) })
	return kept
}
