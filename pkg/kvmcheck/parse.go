package kvmcheck

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// extensions are the CPU flags that mean hardware virtualization.
const (
	extensionIntel = "vmx"
	extensionAMD   = "svm"
	extensionS390  = "sie"
)

// parseCPUInfo reads /proc/cpuinfo of any architecture: a block per CPU on
// x86 and Arm, one "features" line for all CPUs on s390.
func parseCPUInfo(data []byte) (CPUInfo, error) {
	var info CPUInfo
	if !bytes.HasSuffix(data, []byte("\n")) {
		return info, errors.New("its last line has no end") // half a line of flags has half of the flags
	}
	for line := range bytes.Lines(data) {
		key, value, found := strings.Cut(string(line), ":")
		if !found {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "processor", "cpu number":
			info.CPUs++
		case "# processors":
			info.CPUs, _ = strconv.Atoi(value)
		case "vendor_id", "CPU implementer":
			info.Vendor = value
		case "model name", "machine":
			info.Model = value
		case "flags", "features", "Features":
			info.addFlags(strings.Fields(value))
		}
	}
	if info.CPUs <= 0 {
		return CPUInfo{}, errors.New("no processor in it")
	}
	if info.Extension == extensionS390 {
		info.Extended = info.CPUs // its one line speaks for all CPUs
	}
	return info, nil
}

func (info *CPUInfo) addFlags(flags []string) {
	for _, extension := range []string{extensionIntel, extensionAMD, extensionS390} {
		if slices.Contains(flags, extension) {
			info.Extension = extension
			info.Extended++
		}
	}
	if slices.Contains(flags, "hypervisor") {
		info.Hypervisor = true
	}
}

// parseDistances reads "10 21" of node*/distance.
func parseDistances(text string) ([]int, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return nil, errors.New("no distance in it")
	}
	distances := make([]int, 0, len(fields))
	for _, field := range fields {
		distance, err := strconv.Atoi(field)
		if err != nil || distance < 0 {
			return nil, fmt.Errorf("distance %.20q is not a number", field)
		}
		distances = append(distances, distance)
	}
	return distances, nil
}

// parseNodeMemTotal reads "Node 0 MemTotal:  24659364 kB" of node*/meminfo, in KiB.
func parseNodeMemTotal(data []byte) (uint64, error) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) != 5 || fields[2] != "MemTotal:" || fields[4] != "kB" {
			continue
		}
		total, err := strconv.ParseUint(fields[3], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("MemTotal %.20q is not a number", fields[3])
		}
		return total, nil
	}
	return 0, errors.New("no MemTotal in it")
}

// parseIOMMUParameters picks the parameters of a kernel command line that
// steer the IOMMU. The list is never nil.
func parseIOMMUParameters(line string) []string {
	picked := []string{}
	for parameter := range strings.FieldsSeq(line) {
		key, _, _ := strings.Cut(parameter, "=")
		switch key {
		case "iommu", "intel_iommu", "amd_iommu", "arm-smmu.disable_bypass", "iommu.passthrough", "iommu.strict", "intremap", "nointremap":
			picked = append(picked, parameter)
		}
	}
	return picked
}
