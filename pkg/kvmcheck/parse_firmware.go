package kvmcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxCPU bounds the numbers in a cpulist; Linux has fewer CPUs anywhere.
const maxCPU = 1 << 16

// parseCPUList reads a cpulist of the kernel: "0-3,8". An empty one has no CPU.
func parseCPUList(text string) ([]int, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var cpus []int
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || from < 0 || from > to || to > maxCPU || len(cpus) > maxCPU {
			return nil, fmt.Errorf("%.40q is no list of CPUs", text)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// formatCPUList writes sorted CPUs as a cpulist.
func formatCPUList(cpus []int) string {
	var parts []string
	for start := 0; start < len(cpus); {
		end := start
		for end+1 < len(cpus) && cpus[end+1] == cpus[end]+1 {
			end++
		}
		if start == end {
			parts = append(parts, strconv.Itoa(cpus[start]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", cpus[start], cpus[end]))
		}
		start = end + 1
	}
	return strings.Join(parts, ",")
}

// cpuValue is the value of one CPU.
type cpuValue struct {
	cpu   int
	value uint64
}

// groupCPUs puts CPUs with the same value together, in the order in which
// values were seen.
func groupCPUs(values []cpuValue) []CPUGroup {
	var order []uint64
	cpus := make(map[uint64][]int)
	for _, v := range values {
		if !slices.Contains(order, v.value) {
			order = append(order, v.value)
		}
		cpus[v.value] = append(cpus[v.value], v.cpu)
	}
	groups := make([]CPUGroup, 0, len(order))
	for _, value := range order {
		groups = append(groups, CPUGroup{Value: value, CPUs: formatCPUList(cpus[value])})
	}
	return groups
}

// commonFlags are the CPU flags that checks ask for, beside the extension.
func commonFlags() []string {
	return []string{"constant_tsc", "nonstop_tsc", "tsc_known_freq", "tsc_reliable", "tdx_host_platform"}
}

// parseCommonFlags picks from /proc/cpuinfo those of commonFlags that every CPU has.
func parseCommonFlags(data []byte, cpus int) []string {
	count := make(map[string]int)
	for line := range bytes.Lines(data) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if !found || string(bytes.TrimSpace(key)) != "flags" {
			continue
		}
		for flag := range bytes.FieldsSeq(value) {
			count[string(flag)]++
		}
	}
	var flags []string
	for _, flag := range commonFlags() {
		if count[flag] == cpus {
			flags = append(flags, flag)
		}
	}
	return flags
}

// parseMicrocode reads the microcode revision of every CPU from /proc/cpuinfo,
// where x86 has it; none elsewhere, and where a hypervisor hides it.
func parseMicrocode(data []byte) []CPUGroup {
	var values []cpuValue
	cpu := -1
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(string(line), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "processor":
			number, err := strconv.Atoi(value)
			if err != nil {
				return nil
			}
			cpu = number
		case "microcode":
			revision, err := strconv.ParseUint(value, 0, 64)
			if err != nil || cpu < 0 {
				return nil
			}
			values = append(values, cpuValue{cpu, revision})
		}
	}
	if len(values) == 0 {
		return nil
	}
	return groupCPUs(values)
}

// parseHypervisorSignature names the hypervisor of CPUID leaf 0x40000000,
// whose EBX, ECX and EDX are twelve letters.
func parseHypervisorSignature(id CPUIDRegisters) string {
	var letters []byte
	for _, word := range []uint32{id.EBX, id.ECX, id.EDX} {
		letters = binary.LittleEndian.AppendUint32(letters, word)
	}
	signature := strings.TrimRight(string(letters), "\x00 ")
	switch signature {
	case "KVMKVMKVM":
		return "KVM"
	case "TCGTCGTCGTCG":
		return "QEMU TCG"
	case "Microsoft Hv":
		return "Hyper-V"
	case "VMwareVMware":
		return "VMware"
	case "XenVMMXenVMM":
		return "Xen"
	case "VBoxVBoxVBox":
		return "VirtualBox"
	case "bhyve bhyve":
		return "bhyve"
	case "ACRNACRNACRN":
		return "ACRN"
	case " lrpepyh  vr", "prl hyperv":
		return "Parallels"
	default:
		return clipText(signature)
	}
}

// parseSysinfo reads /proc/sysinfo of s390: a block of lines "VMnn ..." for
// each hypervisor above, VM00 the nearest. A logical partition has none.
func parseSysinfo(data []byte) (Hypervisor, error) {
	var hypervisor Hypervisor
	var machine bool
	for line := range bytes.Lines(data) {
		key, value, found := strings.Cut(string(line), ":")
		if !found {
			continue
		}
		value = strings.TrimSpace(value)
		switch level, ofVM := strings.CutPrefix(key, "VM"); {
		case ofVM && strings.HasSuffix(level, " Control Program"):
			hypervisor.Depth++
			if hypervisor.Depth == 1 {
				hypervisor.Name = clipText(strings.Join(strings.Fields(value), " "))
			}
		case key == "Manufacturer" || strings.HasPrefix(key, "LPAR "):
			machine = true
		}
	}
	if !machine && hypervisor.Depth == 0 {
		return hypervisor, errors.New("neither a machine nor a VM in it")
	}
	return hypervisor, nil
}

// clipText keeps what a file or device says short enough for a message.
func clipText(text string) string {
	const most = 160
	text = strings.ToValidUTF8(text, "?")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
