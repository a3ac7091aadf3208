package hostfs

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// masker returns a function that replaces, in names and in content, what
// identifies one machine. Equal inputs stay equal to each other.
func masker(on bool) func(string) string {
	if !on {
		return func(s string) string { return s }
	}
	var (
		mac  = regexp.MustCompile(`\b[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\b`)
		enx  = regexp.MustCompile(`\benx[0-9a-f]{12}\b`)
		uuid = regexp.MustCompile(`\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b`)
		seen = make(map[string]int)
	)
	number := func(kind, value string) int {
		value = kind + strings.ToLower(value)
		if _, found := seen[value]; !found {
			seen[value] = len(seen) + 1
		}
		return seen[value]
	}
	macNumber := func(hex string) int { return number("mac", strings.ReplaceAll(hex, ":", "")) & 0xffff }
	return func(s string) string {
		s = mac.ReplaceAllStringFunc(s, func(m string) string {
			n := macNumber(m)
			return fmt.Sprintf("02:00:00:00:%02x:%02x", n>>8, n&0xff)
		})
		s = enx.ReplaceAllStringFunc(s, func(m string) string {
			return fmt.Sprintf("enx02000000%04x", macNumber(m[3:]))
		})
		return uuid.ReplaceAllStringFunc(s, func(m string) string {
			return fmt.Sprintf("00000000-0000-4000-8000-%012x", number("uuid", m))
		})
	}
}

// maskFile replaces the content of files whose whole value is an identity, and
// what strangers may have put on the kernel's command line.
func maskFile(name, data string) string {
	base := path.Base(name)
	switch {
	case name == "/proc/cmdline":
		return maskCmdline(data)
	case base == "mountinfo":
		return mountSource.ReplaceAllString(data, " - $1 masked masked")
	case strings.Contains(name, "/net.d/"):
		return jsonSecret.ReplaceAllString(data, `$1"masked"`)
	case strings.Contains(base, "serial"), strings.HasSuffix(base, "_uuid"),
		strings.HasSuffix(base, "asset_tag"), base == "machine-id":
		return "masked\n"
	}
	return data
}

var (
	// mountSource finds a mount's source and its options, which name servers.
	mountSource = regexp.MustCompile(`(?m) - (\S+) .*$`)
	// jsonSecret finds the value of a key that may be a secret.
	jsonSecret = regexp.MustCompile(`("[^"]*(?i:token|secret|passw|key|cert|_ca)[^"]*"\s*:\s*)"(?:[^"\\]|\\.)*"`)
)

// maskCmdline keeps the parameters that are about virtualization, memory, CPUs
// and PCI. The others may hold host names, addresses and secrets.
func maskCmdline(line string) string {
	var kept []string
	for parameter := range strings.FieldsSeq(line) {
		if parameter == "--" {
			break // what follows is for init
		}
		if tellingParameter.MatchString(parameter) {
			kept = append(kept, parameter)
		}
	}
	return strings.Join(kept, " ") + "\n"
}

var tellingParameter = regexp.MustCompile(`^(intel_iommu|amd_iommu|iommu|iommu\.[a-z]+|intremap|nointremap|` +
	`hugepages|hugepagesz|default_hugepagesz|transparent_hugepage|kvm[a-z_-]*\.[a-z0-9_]+|vfio[a-z_-]*\.[a-z0-9_]+|` +
	`mitigations|isolcpus|nohz_full|tsc|clocksource|pci|nosmt|cgroup_[a-z_0-9]+)(=[^ ]*)?$`)
