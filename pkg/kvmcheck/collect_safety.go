package kvmcheck

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/virtnode/nodeagent/internal/hostfs"
)

const (
	clocksourceDir     = "/sys/devices/system/clocksource/clocksource0"
	tscFrequency       = "/sys/devices/system/cpu/cpu0/tsc_freq_khz"
	vulnerabilitiesDir = "/sys/devices/system/cpu/vulnerabilities"
	smtDir             = "/sys/devices/system/cpu/smt"
	securityDir        = "/sys/kernel/security"
	lsmList            = "/sys/kernel/security/lsm"
	selinuxDir         = "/sys/fs/selinux"
	apparmorEnabled    = "/sys/module/apparmor/parameters/enabled"
)

func collectTime(root *hostfs.Root) TimeFacts {
	var facts TimeFacts
	source := path.Join(clocksourceDir, "current_clocksource")
	current, err := root.ReadString(source)
	facts.Clocksource = reading(source, current, err)
	source = path.Join(clocksourceDir, "available_clocksource")
	available, err := root.ReadString(source)
	facts.Available = reading(source, strings.Fields(available), err)
	khz, err := root.ReadUint(tscFrequency)
	facts.TSCKHz = reading(tscFrequency, khz, err)
	return facts
}

func collectSafety(root *hostfs.Root) SafetyFacts {
	facts := SafetyFacts{
		Vulnerabilities: collectVulnerabilities(root),
		Lockdown:        collectLockdown(root),
		SELinux:         collectSELinux(root),
	}
	source := path.Join(smtDir, "active")
	active, err := root.ReadBool(source)
	facts.SMTActive = reading(source, active, err)
	source = path.Join(smtDir, "control")
	control, err := root.ReadString(source)
	facts.SMTControl = reading(source, control, err)
	enabled, err := root.ReadBool(apparmorEnabled)
	facts.AppArmor = reading(apparmorEnabled, enabled, err)
	if hostfs.Absent(err) {
		facts.AppArmor = known(apparmorEnabled, false)
	}
	return facts
}

// collectVulnerabilities reads what the kernel says of each CPU vulnerability
// (Linux Documentation/ABI/testing/sysfs-devices-system-cpu, and
// Documentation/admin-guide/hw-vuln). Left out are those between programs of
// one kernel; what newer kernels add counts.
func collectVulnerabilities(root *hostfs.Root) Reading[[]Vulnerability] {
	names, err := root.ReadDir(vulnerabilitiesDir)
	if err != nil {
		return unknown[[]Vulnerability](vulnerabilitiesDir, err)
	}
	found := []Vulnerability{}
	for _, name := range names {
		if slices.Contains([]string{"meltdown", "spectre_v1", "spec_store_bypass"}, name) {
			continue
		}
		source := path.Join(vulnerabilitiesDir, name)
		text, err := root.ReadString(source)
		found = append(found, Vulnerability{Name: name, Text: reading(source, text, err)})
	}
	return known(vulnerabilitiesDir, found)
}

// collectLockdown reads the kernel's lockdown(7) state. A kernel without it has
// no file, and so has one whose securityfs is not mounted.
func collectLockdown(root *hostfs.Root) Reading[string] {
	source := path.Join(securityDir, "lockdown")
	text, err := root.ReadString(source)
	if err == nil {
		state, err := parseBracketed(text)
		return reading(source, state, err)
	}
	if !hostfs.Absent(err) {
		return unknown[string](source, err)
	}
	names, err := root.ReadDir(securityDir)
	switch {
	case hostfs.Absent(err): // a kernel without security modules
		return known(source, "none")
	case err != nil:
		return unknown[string](securityDir, err)
	case len(names) == 0:
		return unknown[string](securityDir, hostfs.ErrNotMounted)
	default:
		return known(source, "none")
	}
}

// collectSELinux reads selinuxfs. That it is missing says little: its mount
// point is there also when another security module was chosen at boot, which
// /sys/kernel/security/lsm tells.
func collectSELinux(root *hostfs.Root) Reading[string] {
	source := path.Join(selinuxDir, "enforce")
	enforcing, err := root.ReadString(source) // its one digit ends without a newline
	switch {
	case err == nil && enforcing == "1":
		return known(source, "enforcing")
	case err == nil && enforcing == "0":
		return known(source, "permissive")
	case err == nil:
		return unknown[string](source, fmt.Errorf("want 0 or 1, have %.20q", enforcing))
	case !hostfs.Absent(err):
		return unknown[string](source, err)
	}
	active, err := root.ReadString(lsmList)
	if err == nil && !slices.Contains(strings.Split(active, ","), "selinux") {
		return known(lsmList, "off")
	}
	if err != nil && !hostfs.Absent(err) {
		return unknown[string](lsmList, err)
	}
	there, err := root.Exists(selinuxDir)
	switch {
	case err != nil:
		return unknown[string](selinuxDir, err)
	case there:
		return unknown[string](selinuxDir, hostfs.ErrNotMounted)
	default:
		return known(selinuxDir, "off")
	}
}
