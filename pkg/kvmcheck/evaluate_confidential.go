package kvmcheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// technology is one way to keep VMs secret from their host, and how it stands.
type technology struct {
	name   string
	status Status
	reason Reason
	detail string
	remedy string
}

const wantConfidential = "only for confidential VMs: "

// evaluateConfidential is one finding for whatever this kind of machine has:
// ready when one technology is.
func evaluateConfidential(facts Facts) []Finding {
	const area, check = "guests", "confidential"
	if why := sevContradiction(facts); facts.Host.Arch == "amd64" && why != "" {
		return []Finding{{
			Area: area, Check: check, Status: Unknown, Reason: ConfidentialIncoherent, Message: why,
			Remedy: wantConfidential + "reload kvm_amd with sev, sev_es and sev_snp all on; dmesg | grep -i sev",
		}}
	}
	all := technologies(facts)
	switch {
	case len(all) > 0:
	case facts.Host.Arch == "arm64":
		return []Finding{{Area: area, Check: check, Status: Unknown, Reason: RealmsUndefined, Message: "no released kernel shows whether KVM can make realms (CCA)"}}
	default:
		return []Finding{undecided(area, check, "nothing is known of confidential VMs on this architecture")}
	}
	return []Finding{summarise(area, check, all)}
}

// technologies lists what this kind of machine may have; none where nothing
// is known of it.
func technologies(facts Facts) []technology {
	switch facts.Host.Arch {
	case "amd64":
		return []technology{sevSNP(facts), sevES(facts), sev(facts), tdx(facts)}
	case "s390x":
		return []technology{secureExecutionOf(facts)}
	default:
		return nil
	}
}

// Technologies says by name which ways to keep VMs secret from their host it
// has: "SEV", "SEV-ES", "SEV-SNP", "TDX", "Secure Execution". One whose room is
// taken by VMs is there all the same.
func Technologies(facts Facts) map[string]Status {
	all := make(map[string]Status)
	incoherent := facts.Host.Arch == "amd64" && sevContradiction(facts) != ""
	for _, t := range technologies(facts) {
		switch {
		case incoherent:
			all[t.name] = Unknown
		case t.reason == ConfidentialExhausted:
			all[t.name] = Ready
		default:
			all[t.name] = t.status
		}
	}
	return all
}

// summarise lists what works; else names what nobody can tell; else says what
// is nearest to working.
func summarise(area, check string, all []technology) Finding {
	var there []technology
	for _, t := range all {
		if t.reason != ConfidentialUnsupported {
			there = append(there, t)
		}
	}
	if slices.ContainsFunc(all, func(t technology) bool { return t.status == Ready }) {
		return found(area, check, list(there))
	}
	for _, t := range all {
		if t.status == Unknown {
			return undecided(area, check, t.detail)
		}
	}
	// The closer to working, the more telling.
	nearest := slices.MinFunc(all, func(a, b technology) int { return cmp.Compare(distance(a.reason), distance(b.reason)) })
	message := nearest.detail
	if nearest.reason != ConfidentialUnsupported {
		message = list(there)
	}
	return lacking(area, check, nearest.reason, message, wantConfidential+nearest.remedy)
}

// list names technologies, neighbours of the same detail together.
func list(all []technology) string {
	var parts []string
	for i := 0; i < len(all); {
		names, detail := []string{}, all[i].detail
		for ; i < len(all) && all[i].detail == detail; i++ {
			names = append(names, all[i].name)
		}
		parts = append(parts, strings.Join(names, ", ")+": "+detail)
	}
	return strings.Join(parts, "; ")
}

func distance(reason Reason) int {
	return slices.Index([]Reason{ConfidentialExhausted, DeviceMissing, ModuleNotLoaded, ConfidentialDisabled, ConfidentialUnsupported}, reason)
}

// sevContradiction says where KVM contradicts itself or the CPU.
func sevContradiction(facts Facts) string {
	parameters, capability := facts.Confidential.Parameters, facts.Confidential.SEV
	is := func(parameter string, want bool) bool {
		value, found := parameters[parameter]
		return found && value.Known && value.Value == want
	}
	for _, pair := range [][2]string{{paramSEVSNP, paramSEVES}, {paramSEVES, paramSEV}} {
		if is(pair[0], true) && is(pair[1], false) {
			return fmt.Sprintf("%s is on although %s is off, on which it builds", parameterPath(pair[0]), parameterPath(pair[1]))
		}
	}
	if !capability.Known {
		return ""
	}
	for _, step := range []struct {
		parameter string
		offered   bool
	}{{paramSEV, capability.Value.SEV}, {paramSEVES, capability.Value.SEVES}, {paramSEVSNP, capability.Value.SEVSNP}} {
		if is(step.parameter, true) && !step.offered {
			return fmt.Sprintf("%s is on although the CPU lacks it, says %s", parameterPath(step.parameter), capability.Source)
		}
	}
	return ""
}

func sev(facts Facts) technology {
	capability := facts.Confidential.SEV
	if offered(capability) && capability.Value.FirstASID > capability.Value.ASIDs {
		return technology{
			"SEV", NotReady, ConfidentialDisabled, "firmware gives all ASIDs to SEV-ES and SEV-SNP",
			"lower the SEV-ES ASID space limit in the firmware setup",
		}
	}
	return amdTechnology(facts, "SEV", []string{paramSEV}, "sev", capability.Value.SEV, "enable SMEE (memory encryption) in the firmware setup, and kvm_amd.sev=1")
}

func sevES(facts Facts) technology {
	capability := facts.Confidential.SEV
	remedy := "kvm_amd.sev=1 kvm_amd.sev_es=1 on the kernel command line"
	if offered(capability) && capability.Value.FirstASID <= 1 {
		remedy = "set ASIDs aside for SEV-ES in the firmware setup (SEV-ES ASID space limit above 1)"
	}
	return amdTechnology(facts, "SEV-ES", []string{paramSEVES, paramSEV}, "sev_es", capability.Value.SEVES, remedy)
}

func sevSNP(facts Facts) technology {
	remedy := "enable SEV-SNP (RMP table) and the IOMMU in the firmware setup; Linux 6.11 or newer"
	if slices.Contains(facts.IOMMU.CmdLine.Value, "iommu=pt") {
		remedy = "boot without iommu=pt, which excludes SEV-SNP"
	}
	return amdTechnology(facts, "SEV-SNP", []string{paramSEVSNP, paramSEVES, paramSEV}, "sev_es", facts.Confidential.SEV.Value.SEVSNP, remedy)
}

func offered(capability Reading[SEVCapability]) bool { return capability.Known && capability.Value.SEV }

// amdTechnology judges one step of SEV by its parameter and those it builds
// on, its pool of ASIDs, and the security processor's device.
func amdTechnology(facts Facts, name string, parameters []string, pool string, canCPU bool, remedy string) technology {
	confidential := facts.Confidential
	for _, parameter := range parameters {
		if value, found := confidential.Parameters[parameter]; found && !value.Known {
			return technology{name: name, detail: value.Err}
		}
	}
	value, found := confidential.Parameters[parameters[0]]
	device := confidential.SEVDevice
	switch {
	case !found || !value.Value:
		return amdOff(facts, name, parameters[0], canCPU, remedy)
	case !device.Known:
		return technology{name: name, detail: device.Err}
	case !device.Value:
		return technology{name, NotReady, DeviceMissing, device.Source + " does not exist", "modprobe ccp; dmesg | grep -i -e ccp -e sev"}
	default:
		return withPool(confidential.Pools, pool, "ASIDs", technology{name: name, status: Ready, detail: "on"})
	}
}

// amdOff says why a step of SEV is off.
func amdOff(facts Facts, name, parameter string, canCPU bool, remedy string) technology {
	info, capability := facts.CPU.Info, facts.Confidential.SEV
	switch {
	case !info.Known:
		return technology{name: name, detail: info.Err}
	case info.Value.Hypervisor || firmwareRegister(info.Value.Vendor) != msrVMCR || capability.Known && !canCPU:
		return unsupported(name, info.Value)
	case !facts.KVM.Modules.Known:
		return technology{name: name, detail: facts.KVM.Modules.Err}
	case switchedOff(facts):
		return technology{name, NotReady, ConfidentialDisabled, "firmware has SVM off", "see firmware/virtualization"}
	case !slices.Contains(facts.KVM.Modules.Value, "kvm_amd"):
		return technology{name, NotReady, ModuleNotLoaded, "kvm_amd is not loaded", loadModule("kvm_amd")}
	default:
		return technology{name, NotReady, ConfidentialDisabled, parameterPath(parameter) + " is off or missing", remedy}
	}
}

func unsupported(name string, cpu CPUInfo) technology {
	detail := "no technology for it on this CPU"
	if cpu.Hypervisor {
		detail = "none inside a VM"
	}
	return technology{name, NotReady, ConfidentialUnsupported, detail, "a host with AMD SEV, Intel TDX or IBM Secure Execution"}
}

func tdx(facts Facts) technology {
	const name = "TDX"
	info := facts.CPU.Info
	value, found := facts.Confidential.Parameters[paramTDX]
	switch {
	case found && !value.Known:
		return technology{name: name, detail: value.Err}
	case found && value.Value:
		return withPool(facts.Confidential.Pools, "tdx", "keys", technology{name: name, status: Ready, detail: "on"})
	case !info.Known:
		return technology{name: name, detail: info.Err}
	case slices.Contains(info.Value.Flags, "tdx_host_platform"):
		return technology{name, NotReady, ConfidentialDisabled, parameterPath(paramTDX) + " is off or missing, although the platform has it", "kvm_intel.tdx=1 on the kernel command line; Linux 6.16 or newer; dmesg | grep -i tdx"}
	default:
		return unsupported(name, info.Value)
	}
}

// withPool adds how many more VMs there is room for: none is not ready.
func withPool(pools Reading[map[string]Pool], name, unit string, t technology) technology {
	pool, found := pools.Value[name]
	switch {
	case !pools.Known:
		return technology{name: t.name, detail: pools.Err}
	case !found:
		return t
	case pool.Used >= pool.Capacity:
		return technology{t.name, NotReady, ConfidentialExhausted, fmt.Sprintf("all %d %s are taken", pool.Capacity, unit), "stop or move a confidential VM"}
	default:
		t.detail = fmt.Sprintf("%d of %d %s left", pool.Capacity-pool.Used, pool.Capacity, unit)
		return t
	}
}

func secureExecutionOf(facts Facts) technology {
	const name = "Secure Execution"
	switch host := facts.Confidential.SecureExecution; {
	case !host.Known:
		return technology{name: name, detail: host.Err}
	case host.Value:
		return technology{name: name, status: Ready, detail: "on"}
	default:
		return technology{name, NotReady, ConfidentialDisabled, host.Source + " is 0 or missing", "prot_virt=1 on the kernel command line, on an IBM z15, LinuxONE III or newer"}
	}
}
