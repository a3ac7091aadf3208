package kvmcheck

import (
	"fmt"
	"path"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	sevDevice       = "/dev/sev"
	secureExecution = "/sys/firmware/uv/prot_virt_host"
	leafEncryption  = 0x8000001f
)

// confidentialParameters are those of KVM's modules that say what works:
// the kernel writes N into what firmware or CPU lack.
func confidentialParameters() []string {
	return []string{paramSEV, paramSEVES, paramSEVSNP, paramTDX}
}

const (
	paramSEV    = "kvm_amd.sev"
	paramSEVES  = "kvm_amd.sev_es"
	paramSEVSNP = "kvm_amd.sev_snp"
	paramTDX    = "kvm_intel.tdx"
)

// parameterPath is where sysfs has a module's parameter.
func parameterPath(parameter string) string {
	module, name, _ := strings.Cut(parameter, ".")
	return path.Join(modulesDir, module, "parameters", name)
}

func collectConfidential(host Host, facts Facts) ConfidentialFacts {
	switch facts.Host.Arch {
	case "amd64":
		confidential := ConfidentialFacts{
			Parameters: make(map[string]Reading[bool]),
			SEVDevice:  collectExists(host.Root, sevDevice),
			SEV:        collectSEV(host, facts),
			Pools:      collectPools(host.Root),
		}
		for _, parameter := range confidentialParameters() {
			source := parameterPath(parameter)
			value, err := host.Root.ReadBool(source)
			if !hostfs.Absent(err) {
				confidential.Parameters[parameter] = reading(source, value, err)
			}
		}
		return confidential
	case "s390x":
		value, err := host.Root.ReadBool(secureExecution)
		if hostfs.Absent(err) {
			return ConfidentialFacts{SecureExecution: known(secureExecution, false)}
		}
		return ConfidentialFacts{SecureExecution: reading(secureExecution, value, err)}
	default:
		return ConfidentialFacts{}
	}
}

// collectSEV asks an AMD CPU for leaf 0x8000001f (AMD APM volume 3, E.4.17).
func collectSEV(host Host, facts Facts) Reading[SEVCapability] {
	info := facts.CPU.Info
	if !info.Known {
		return Reading[SEVCapability]{Source: info.Source, Err: info.Err}
	}
	if firmwareRegister(info.Value.Vendor) != msrVMCR {
		return known(info.Source, SEVCapability{})
	}
	cpus, err := readOnlineCPUs(host.Root)
	if err != nil {
		return unknown[SEVCapability](onlineCPUs, err)
	}
	source := fmt.Sprintf("%s leaf %#x", cpuidPath(cpus[0]), uint32(leafEncryption))
	id, err := host.Devices.ReadCPUID(cpus[0], leafEncryption)
	return reading(source, parseSEV(id), err)
}

// collectPools reads what the root of the misc cgroup hands out, of either
// cgroup version (Linux Documentation/admin-guide/cgroup-v2.rst, "Misc").
// A container in a cgroup namespace of its own does not see it.
func collectPools(root *hostfs.Root) Reading[map[string]Pool] {
	for _, dir := range []string{cgroupDir, path.Join(cgroupDir, "misc")} {
		source := path.Join(dir, "misc.capacity")
		capacity, err := root.ReadString(source)
		if hostfs.Absent(err) {
			continue
		}
		if err != nil {
			return unknown[map[string]Pool](source, err)
		}
		source = path.Join(dir, "misc.current")
		current, err := root.ReadString(source)
		if err != nil {
			return unknown[map[string]Pool](source, err)
		}
		pools, err := parsePools(capacity, current)
		return reading(path.Join(dir, "misc.*"), pools, err)
	}
	return known(path.Join(cgroupDir, "misc.capacity"), map[string]Pool{})
}
